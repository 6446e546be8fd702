"""The source tree: imports go down the floors only, light rooms stay light, nobody knows a kind by its name."""

import ast
import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from floors import DOORS, FLOORS, HEAVY, LIGHT
from source_tree import PACKAGES, ROOT, all_modules, imports_of, module_name, parse

pytestmark = pytest.mark.no_backend

LIBRARY = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OUTSIDE_STAGES = [
    path
    for path in LIBRARY
    if path.is_relative_to(ROOT / "pipelines") and not path.is_relative_to(ROOT / "pipelines" / "stages")
]
BACKENDS = {"jax", "jaxlib", "tensorflow", "torch"}


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def targets(path: pathlib.Path) -> set[str]:
    return {one.target for one in imports_of(path)}


def room_of(module: str, package: str) -> str | None:
    """The room of a module of a package; None for others, and for the package's own names."""
    parts = module.split(".")
    return parts[1] if parts[0] == package and len(parts) > 1 else None


def upward_imports(root: pathlib.Path = ROOT) -> list[str]:
    """Imports of a tree that do not go down."""
    found = []
    for package, floors in FLOORS.items():
        for path in sorted((root / package).rglob("*.py")):
            own = room_of(module_name(path, root), package)
            if own is None:
                continue
            if own not in floors:
                found.append(f"{path.relative_to(root)}: the room {own!r} is not on the floor plan (floors.py)")
                continue
            for one in imports_of(path, root):
                other = room_of(one.target, package)
                if other in (None, own) or floors.get(other, 99) < floors[own]:
                    continue
                found.append(f"{path.relative_to(root)}:{one.line}: {own} imports {one.target}, which is not below it")
    return found


def test_imports_go_down_only():
    assert upward_imports() == []


def test_only_the_backends_folder_names_a_backend():
    elsewhere = [path for path in LIBRARY if not path.is_relative_to(ROOT / "gemma_keras" / "backends")]
    assert [short(path) for path in elsewhere if BACKENDS & {name.split(".")[0] for name in targets(path)}] == []


def test_gemma_keras_knows_nothing_of_pipelines():
    strangers = {"pipelines", "yaml", "datasets", "pydantic", "rich", "matplotlib", "jinja2"}
    library = [path for path in LIBRARY if path.is_relative_to(ROOT / "gemma_keras")]
    assert [short(path) for path in library if strangers & {name.split(".")[0] for name in targets(path)}] == []


def test_kinds_meet_through_folders_on_disk_alone():
    stages = ROOT / "pipelines" / "stages"
    kinds = {folder.parent.name for folder in stages.glob("*/config.py")}
    found = []
    for path in sorted(stages.rglob("*.py")):
        own = path.relative_to(stages).parts[0]
        named = {name.split(".")[2] for name in targets(path) if name.startswith("pipelines.stages.")}
        if own in kinds and named & (kinds - {own}):
            found.append(f"{short(path)}: {', '.join(named & (kinds - {own}))}")
    assert found == []


def test_imports_within_functions_are_the_doors_that_are_named():
    unnamed, used = [], set()
    for path in LIBRARY:
        for one in imports_of(path):
            if not one.is_late:
                continue
            doors = [door for door, (pattern, _) in DOORS.items() if fnmatch.fnmatch(short(path), door)]
            fitting = [door for door in doors if fnmatch.fnmatch(one.target, DOORS[door][0])]
            used |= set(fitting)
            if not fitting:
                unnamed.append(f"{short(path)}:{one.line}: {one.target}")
    assert unnamed == []
    assert set(DOORS) - used == {"gemma_keras/__init__.py"}, "a door that nobody uses, or its file has moved"


def heavy_modules_of(root: pathlib.Path) -> dict[str, list[str]]:
    """What importing each light module of a tree brings in of `HEAVY`, in a fresh process; the first culprit alone."""
    light = [name for name in all_modules(root) if any(fnmatch.fnmatch(name, pattern) for pattern in LIGHT)]
    program = (
        f"import importlib, json, sys\nfor name in {light!r}:\n    importlib.import_module(name)\n    found = [heavy "
        f"for heavy in {HEAVY!r} if heavy in sys.modules]\n    if found:\n        print(json.dumps({{name: found}}))\n "
        "       sys.exit()\nprint('{}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_light_modules_load_nothing_heavy():
    for pattern in LIGHT:
        assert [name for name in all_modules() if fnmatch.fnmatch(name, pattern)], f"{pattern} names no module"
    assert heavy_modules_of(ROOT) == {}


@pytest.fixture
def source_copy(tmp_path) -> pathlib.Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_light_room_that_imports_keras_is_found(source_copy):
    """The test of the test above."""
    path = source_copy / "pipelines" / "schema" / "scoring.py"
    path.write_text(path.read_text().replace("from collections", "import keras  # noqa: F401\nfrom collections", 1))
    ((_, heavy),) = heavy_modules_of(source_copy).items()
    assert "keras" in heavy


@pytest.mark.parametrize(
    "line",
    [
        "from pipelines.run import keys",
        "import pipelines.stages.registry",
        "import importlib; importlib.import_module('pipelines.workflow.loading')",
    ],
)
def test_an_import_that_goes_up_is_found(source_copy, line):
    """However it is written."""
    path = source_copy / "pipelines" / "schema" / "data.py"
    path.write_text(path.read_text() + f"\n\ndef late():\n    {line}\n")
    (found,) = upward_imports(source_copy)
    assert found.startswith("pipelines/schema/data.py:") and "which is not below it" in found


def test_nobody_outside_stages_knows_a_kind():
    """No kind's name as a text, no `isinstance` of a configuration on a kind, no `getattr(config, ...)`."""
    from pipelines.stages.registry import KINDS

    classes = {config.__name__ for config in KINDS.values()}
    # One of the built-in task's splits is called like a kind.
    splits = ("pipelines/schema/data.py", "pipelines/data/sources.py", "pipelines/tasks/")
    found = []
    for path in OUTSIDE_STAGES:
        for node in ast.walk(parse(path)):
            where = f"{short(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Constant) and node.value in KINDS:
                if not (node.value == "pretraining" and short(path).startswith(splits)):
                    found.append(f"{where}: the kind {node.value!r}")
            elif isinstance(node, ast.Name) and node.id in classes:
                found.append(f"{where}: the class {node.id}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                if ast.unparse(node.args[0]) in ("config", "self.config", "settings", "options"):
                    found.append(f"{where}: {ast.unparse(node)}")
    assert found == []


def test_only_methods_know_an_algorithm_and_only_checkpoints_a_suffix():
    from pipelines.stages.policy_optimization.methods.registry import METHODS

    methods = ROOT / "pipelines" / "stages" / "policy_optimization" / "methods"
    checkpoints = ROOT / "gemma_keras" / "checkpoints"
    found = []
    for path in LIBRARY:
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if node.value in METHODS and not path.is_relative_to(methods):
                found.append(f"{short(path)}:{node.lineno}: the algorithm {node.value!r}")
            if node.value.startswith(".gguf") and not path.is_relative_to(checkpoints):
                found.append(f"{short(path)}:{node.lineno}: the suffix of a format")
    assert found == []


def test_nothing_private_of_another_module_is_imported():
    found = []
    for path in LIBRARY:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                found += [f"{short(path)}:{node.lineno}" for alias in node.names if alias.name.startswith("_")]
    assert found == []
