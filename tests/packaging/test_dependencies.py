"""pyproject.toml declares what the sources import, and nothing that nobody uses."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import PACKAGES, ROOT, imports_of, parse

pytestmark = pytest.mark.no_backend

TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = TABLE["dependencies"]
EXTRAS = TABLE["optional-dependencies"]

TOOLS = {
    "beartype": ("tests/conftest.py", '"beartype.beartype"'),
    "build": ("tests/fixtures/fresh_environment.py", '"build"'),
    "hatchling": ("pyproject.toml", 'build-backend = "hatchling.build"'),
    "mypy": ("tests/run_all.sh", "$bin/mypy"),
    "pytest-timeout": ("pyproject.toml", "\ntimeout ="),
    "pytest-xdist": ("tests/run_all.sh", "--dist loadfile"),
    "ruff": ("tests/run_all.sh", "$bin/ruff"),
    "types-pyyaml": ("pyproject.toml", "[tool.mypy]"),
}
"""Distributions that are used without an import: where, and the text that stands there."""

MODULES = {"protobuf": {"google"}, "types-pyyaml": set(), "llama-cpp-python": {"llama_cpp"}}
"""Distribution → its modules, where the metadata does not say: a namespace, stubs, what is rarely installed."""


def name_of(line: str) -> str:
    return canonicalize_name(Requirement(line).name)


def modules_of(distribution: str) -> set[str]:
    """Top-level modules of a distribution."""
    if distribution in MODULES:
        return MODULES[distribution]
    found = {top for top, names in _owners().items() if distribution in map(canonicalize_name, names)}
    return found or {distribution.replace("-", "_")}


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def imported(folders: tuple[str, ...], root: pathlib.Path = ROOT) -> dict[str, set[str]]:
    """Top-level module of others → files that import it: statements, `import_module`, `importorskip`."""
    found: dict[str, set[str]] = {}
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        tops = {one.target.partition(".")[0] for one in imports_of(path, root)}
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("importorskip") and node.args:
                tops.add(ast.literal_eval(node.args[0]).partition(".")[0])
        for top in tops - set(sys.stdlib_module_names) - set(PACKAGES):
            found.setdefault(top, set()).add(str(path.relative_to(root)))
    return found


def test_every_core_dependency_is_imported_by_the_packages():
    library = imported(PACKAGES)
    assert [line for line in CORE if not modules_of(name_of(line)) & set(library)] == []


def test_every_third_party_import_is_declared():
    declared = {name_of(line) for line in CORE} | {name_of(line) for lines in EXTRAS.values() for line in lines}
    known = {module for name in declared for module in modules_of(name)}
    assert {module: files for module, files in imported(PACKAGES).items() if module not in known} == {}


def test_every_extra_is_imported_by_somebody():
    everywhere = imported((*PACKAGES, "tests", "benchmarks", "examples"))
    unused = []
    for extra, lines in EXTRAS.items():
        for name in {name_of(line) for line in lines} - {"gemma-keras"}:
            if name in TOOLS:
                file, text = TOOLS[name]
                assert text in (ROOT / file).read_text(), f"{name} is no longer used in {file}"
            elif not modules_of(name) & set(everywhere):
                unused.append(f"{extra}: {name}")
    assert unused == []


def test_every_dependency_has_one_lower_bound():
    """Which CI installs: see `versions.yml`."""
    lines = [*CORE, *(line for lines in EXTRAS.values() for line in lines if not line.startswith("gemma-keras"))]
    operators = {line: [one.operator for one in Requirement(line).specifier] for line in lines}
    assert {line: found for line, found in operators.items() if found not in ([">="], ["=="])} == {}


def test_ci_runs_every_python_that_is_named_and_both_ends_of_the_ranges():
    named = sorted(re.findall(r"Python :: (3\.\d+)", "\n".join(TABLE["classifiers"])))
    assert named[0] == TABLE["requires-python"].removeprefix(">=")
    backends = ["jax", "tensorflow", "torch"]
    test, versions = (
        yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())["jobs"]
        for name in ("test.yml", "versions.yml")
    )
    for job in (test["one-backend"], versions["newest"]):
        matrix = job["strategy"]["matrix"]
        assert (matrix["python"], matrix["backend"]) == (named, backends)
    assert versions["lowest"]["strategy"]["matrix"]["backend"] == backends
    steps = "\n".join(step.get("run", "") for step in versions["lowest"]["steps"])
    assert "--resolution lowest-direct" in steps and f"--python {named[0]}" in steps
    (step,) = [step["run"] for step in versions["newest"]["steps"] if "run" in step]
    assert "CONSTRAINTS= " in step
    done = subprocess.run(
        ["make", "-n", "CONSTRAINTS=", "VENV=nowhere", "install"], cwd=ROOT, capture_output=True, text=True
    )
    assert "pip install" in done.stdout and "--constraint" not in done.stdout
    done = subprocess.run(["make", "-n", "VENV=nowhere", "install"], cwd=ROOT, capture_output=True, text=True)
    assert "--constraint constraints.txt --editable" in done.stdout


def test_all_names_extras_that_exist():
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras <= set(EXTRAS)


def test_the_installed_versions_are_pinned_within_the_ranges():
    """`constraints.txt` pins every direct dependency, to a version that pyproject.toml allows."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if found := re.fullmatch(r"([\w.-]+)==(\S+)", line.partition("#")[0].strip()):
            pins[canonicalize_name(found[1])] = found[2]
    lines = [*CORE, *(line for lines in EXTRAS.values() for line in lines)]
    wrong = []
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name != "gemma-keras" and (name not in pins or pins[name] not in requirement.specifier):
            wrong.append(f"{requirement} is pinned as {pins.get(name)}")
    assert wrong == []


def test_a_package_that_only_a_text_names_counts_as_unused(tmp_path, monkeypatch):
    """The test of the tests above."""
    folder = tmp_path / "gemma_keras"
    folder.mkdir()
    (folder / "one.py").write_text('"""tensorboard"""\n\n\ndef late():\n    import jinja2, yaml\n')
    assert set(imported(("gemma_keras",), tmp_path)) == {"jinja2", "yaml"}
