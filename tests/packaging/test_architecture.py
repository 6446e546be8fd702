"""The shape of the source tree: imports go one way, files and functions stay readable, a few habits stay out.

Imports are read from the syntax tree, those inside functions included, so a cycle cannot hide in a late import.
"""

import ast
import importlib.metadata
import pathlib
import re
import statistics
import sys

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.no_backend

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = sorted([*(ROOT / "gemma_keras").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
OTHERS = sorted(path for folder in ("tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
BACKENDS = {"jax", "jaxlib", "tensorflow", "torch"}

# config ← layers ← lora ← backbone ← {sampling, generation, checkpoints, losses, distribution, ...} ← {causal_lm,
# reward_model}
RANKS = {
    **dict.fromkeys(("config", "lora_options", "random", "errors", "backend_choice", "chat"), 0),
    **dict.fromkeys(("tokenizer", "tokenizer_export", "tokenizer_files", "tokenizer_folder", "tokenizer_training"), 0),
    **{"backends": 1, "initializers": 1, "layers": 2, "lora": 3, "backbone": 4, "causal_lm": 6, "reward_model": 6},
}
MIDDLE = 5


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(path: pathlib.Path) -> set[str]:
    """Full dotted names that a file imports: `from a.b import c` gives a.b and a.b.c. Imports for type checkers do not
    count."""
    names: set[str] = set()
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    waiting: list[ast.AST] = [parse(path)]
    while waiting:
        node = waiting.pop()
        if is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


def part_of(name: str, package: str) -> str | None:
    """The first component below `package` of a dotted name, if it is a file or folder there."""
    parts = name.split(".")
    if len(parts) < 2 or parts[0] != package:
        return None
    folder = ROOT / package
    return parts[1] if (folder / parts[1]).is_dir() or (folder / f"{parts[1]}.py").is_file() else None


@pytest.mark.parametrize("path", LIBRARY, ids=short)
def test_only_the_backends_folder_names_a_backend(path):
    if path.is_relative_to(ROOT / "gemma_keras" / "backends"):
        return
    assert not {name for name in imports_of(path) if name.split(".")[0] in BACKENDS}


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.is_relative_to(ROOT / "gemma_keras")], ids=short)
def test_gemma_keras_knows_nothing_of_pipelines(path):
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert not tops & {"pipelines", "yaml", "datasets", "pydantic", "rich", "matplotlib", "jinja2"}


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.is_relative_to(ROOT / "gemma_keras")], ids=short)
def test_imports_of_gemma_keras_go_one_way(path):
    own = path.relative_to(ROOT / "gemma_keras").with_suffix("").parts[0]
    if own == "__init__":
        return
    rank = RANKS.get(own, MIDDLE)
    for target in {part_of(name, "gemma_keras") for name in imports_of(path)} - {None, own}:
        other = RANKS.get(target, MIDDLE)
        beside = other == rank and rank in (0, MIDDLE)
        assert other < rank or beside, f"{short(path)} imports {target}"


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.is_relative_to(ROOT / "pipelines")], ids=short)
def test_imports_of_pipelines_go_one_way(path):
    own = path.relative_to(ROOT / "pipelines").with_suffix("").parts[0]
    imported = imports_of(path)
    if own == "stages":
        # Its own module only: stages meet through folders on disk.
        siblings = {p.stem for p in (ROOT / "pipelines" / "stages").glob("*.py")} - {path.stem, "__init__"}
        assert not {
            name for name in imported if name.startswith("pipelines.stages.") and name.split(".")[2] in siblings
        }
        assert not {part_of(name, "pipelines") for name in imported} & {"cli", "runner"}
    if own in ("algorithms", "data", "rollout", "rewards", "training_loop", "checkpoint", "statistics"):
        assert not {part_of(name, "pipelines") for name in imported} & {"stages", "cli", "runner", "stage_main"}
    if own == "algorithms":
        assert {part_of(name, "pipelines") for name in imported} <= {None, "algorithms"}


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.is_relative_to(ROOT / "pipelines")] + OTHERS, ids=short)
def test_nothing_private_of_gemma_keras_is_imported(path):
    if path.is_relative_to(ROOT / "tests"):
        return
    private = {name for name in imports_of(path) if name.startswith("gemma_keras.") and re.search(r"\._(?!_)", name)}
    assert not private


@pytest.mark.parametrize("path", LIBRARY + OTHERS, ids=short)
def test_files_and_functions_stay_readable(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines: split it by concept"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 80, f"{node.name} in line {node.lineno} has {length} lines"


def test_half_of_the_files_are_short():
    assert statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY) <= 150


@pytest.mark.parametrize("path", LIBRARY, ids=short)
def test_habits_that_stay_out_of_the_library(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", text)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Assert):
            found.append(f"assert in line {node.lineno}")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"bare except in line {node.lineno}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            found.append(f"hasattr in line {node.lineno}")
    assert not found


@pytest.mark.parametrize("path", LIBRARY, ids=short)
def test_public_functions_and_classes_have_docstrings(path):
    tree = parse(path)
    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    missing = [node.name for node in definitions if not node.name.startswith("_") and ast.get_docstring(node) is None]
    if text := path.read_text(encoding="utf-8").strip():
        assert ast.get_docstring(tree), f"the module has no docstring; it starts with {text.splitlines()[0]!r}"
    assert not missing


def test_every_third_party_import_is_declared(project_table):
    declared = [Requirement(line).name.lower().replace("_", "-") for line in project_table["dependencies"]]
    for lines in project_table["optional-dependencies"].values():
        declared += [Requirement(line).name.lower().replace("_", "-") for line in lines]
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in LIBRARY:
        for top in (
            {name.split(".")[0] for name in imports_of(path)}
            - set(sys.stdlib_module_names)
            - {"gemma_keras", "pipelines"}
        ):
            owners = {owner.lower().replace("_", "-") for owner in distributions.get(top, [top])}
            if not owners & set(declared):
                undeclared.add((short(path), top))
    assert not undeclared
