"""Writes the tree of rooms into README.md and the list of files, docs/files.md, from the first lines of the docstrings.

    python docs/tree.py            # rewrite both
    python docs/tree.py --check    # exit 1 where one is out of date

The text between the two marks in README.md is this program's.
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
START, END = "<!-- tree -->", "<!-- /tree -->"
PACKAGES = ("gemma_keras", "pipelines")
FOLDERS = (*PACKAGES, "workflows", "examples", "benchmarks", "docs", "tests")
OTHERS = {
    "workflows/ examples/": "YAML only, each with a comment a key; programs of a page",
    "benchmarks/ docs/": "speed and memory as ratios against peers; architecture, recipes, algorithms",
    "tests/": "mirrors the rooms; plus parity, closed_form, keras_guides, reliability, security, chain",
}
FILES = "docs/files.md"
FOR_EDITORS = "# yaml-language-server:"


def summary(path: pathlib.Path) -> str:
    """The first sentence of a module's docstring, or the first comment of a YAML file."""
    if path.suffix == ".yaml":
        first = next(line for line in path.read_text().splitlines() if not line.startswith(FOR_EDITORS))
        return first.lstrip("# ").split(". ")[0].split(": ")[0].rstrip(".")
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
    return text.split(". ")[0].rstrip(".")


def rooms() -> list[str]:
    """The tree by room, a line each."""
    found = []
    for package in PACKAGES:
        found.append(f"{package}/".ljust(24) + summary(ROOT / package / "__init__.py"))
        for room in sorted(path.parent for path in (ROOT / package).glob("*/__init__.py")):
            found.append(f"  {room.name}/".ljust(24) + summary(room / "__init__.py"))
    return found + [name.ljust(24) + text for name, text in OTHERS.items()]


def files() -> list[str]:
    """Every source file, a line each; of the tests a line a folder."""
    found = []
    for folder in FOLDERS:
        found.append(f"{folder}/")
        if folder == "tests":
            tests = sorted({path.parent.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("test_*.py")})
            found += [f"  {name}/" for name in tests if name.parts]
            continue
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml") and path.name not in ("__init__.py", "__main__.py"):
                found.append(f"  {path.relative_to(ROOT / folder)!s:<46} {summary(path)}".rstrip())
    return found


def wanted() -> dict[pathlib.Path, str]:
    """What the two files should hold."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(START)
    _, after = rest.split(END)
    listing = "# The files\n\nA line a file, from its docstring (`python docs/tree.py` writes this page).\n\n```\n"
    return {
        readme: f"{before}{START}\n```\n" + "\n".join(rooms()) + f"\n```\n{END}{after}",
        ROOT / FILES: listing + "\n".join(files()) + "\n```\n",
    }


def main() -> int:
    """Rewrite or check."""
    stale = {path: text for path, text in wanted().items() if not path.is_file() or path.read_text() != text}
    if "--check" in sys.argv[1:]:
        return int(bool(stale))
    for path, text in stale.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
