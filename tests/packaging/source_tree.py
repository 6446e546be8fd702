"""The source tree as its imports: which room a module is in, what it imports, early or late. Read from the syntax trees
alone."""

import ast
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("gemma_keras", "pipelines")


@dataclasses.dataclass(frozen=True)
class Import:
    """An import of a module.

    Args:
        target: dotted name, of the module and not of what is taken out of it where that can be told.
        line: where it stands. is_late: True within a function, so that importing the file does not import the target.
    """

    target: str
    line: int
    is_late: bool


def module_name(path: pathlib.Path, root: pathlib.Path = ROOT) -> str:
    """Dotted name of a file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: pathlib.Path, root: pathlib.Path = ROOT) -> list[Import]:
    """Every import of a file: `import`, `from`, and `import_module` of a name or pattern of ours. Those for type
    checkers do not count."""
    found: list[Import] = []
    waiting: list[tuple[ast.AST, bool]] = [(parse(path), False)]
    while waiting:
        node, is_late = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += [(child, is_late) for child in node.orelse]
            continue
        for target in _targets(node, path, root):
            found.append(Import(target, node.lineno, is_late))
        below = is_late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        waiting += [(child, below) for child in ast.iter_child_nodes(node)]
    return sorted(found, key=lambda one: (one.line, one.target))


def _targets(node: ast.AST, path: pathlib.Path, root: pathlib.Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        package = list(path.relative_to(root).parent.parts)
        base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
        module = ".".join(part for part in (base, node.module) if part)
        submodules = [f"{module}.{alias.name}" for alias in node.names]
        return [name if _exists(name, root) else module for name in submodules]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module" and node.args:
        return _named(node.args[0], root)
    return []


def _named(argument: ast.expr, root: pathlib.Path) -> list[str]:
    """The modules that a constant, or an f-string of ours, can name."""
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    if isinstance(argument, ast.JoinedStr):
        parts = [
            re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[A-Za-z_0-9]+"
            for part in argument.values
        ]
        pattern = re.compile("".join(parts))
        return [name for name in all_modules(root) if pattern.fullmatch(name)]
    return []


def all_modules(root: pathlib.Path = ROOT) -> list[str]:
    """Dotted names of all our modules."""
    return sorted(module_name(path, root) for package in PACKAGES for path in (root / package).rglob("*.py"))


def _exists(name: str, root: pathlib.Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
