"""Files and functions stay readable, public things are documented, a few habits stay out."""

import ast
import pathlib
import re
import statistics

import pytest
from source_tree import PACKAGES, ROOT, parse

pytestmark = pytest.mark.no_backend

LIBRARY = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OTHERS = sorted(
    path for folder in ("tests", "examples", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")
)


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_and_functions_stay_readable():
    found = []
    for path in LIBRARY + OTHERS:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > 400:
            found.append(f"{short(path)}: {len(lines)} lines; split it by concept")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > 80:
                    found.append(f"{short(path)}:{node.lineno}: {node.name} has {length} lines")
    assert found == []


def test_half_of_the_files_are_short():
    assert statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY) <= 150


def test_habits_that_stay_out_of_the_library():
    found = []
    for path in LIBRARY:
        text = path.read_text(encoding="utf-8")
        found += [f"{short(path)}: {word}" for word in re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", text)]
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Assert):
                found.append(f"{short(path)}:{node.lineno}: assert")
            elif isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{short(path)}:{node.lineno}: bare except")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                found.append(f"{short(path)}:{node.lineno}: hasattr")
    assert found == []


def test_modules_and_public_functions_and_classes_have_docstrings():
    missing = []
    for path in LIBRARY:
        tree = parse(path)
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree):
            missing.append(f"{short(path)}: the module")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None:
                    missing.append(f"{short(path)}:{node.lineno}: {node.name}")
    assert missing == []
