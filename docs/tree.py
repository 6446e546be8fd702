"""Writes the tree in README.md: every source file with the first line of its docstring.

python docs/tree.py            # rewrite the section between the two marks
python docs/tree.py --check    # exit 1 where it is out of date
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
START, END = "<!-- tree -->", "<!-- /tree -->"
FOLDERS = ("gemma_keras", "pipelines", "workflows", "examples", "benchmarks", "tests")


def summary(path: pathlib.Path) -> str:
    """The first sentence of a module's docstring, or the first comment of a YAML file."""
    if path.suffix == ".yaml":
        return path.read_text().splitlines()[0].lstrip("# ").split(". ")[0].split(": ")[0].rstrip(".")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def lines() -> list[str]:
    """The tree, a line a file; of the tests a line a folder."""
    found = []
    for folder in FOLDERS:
        found.append(f"{folder}/")
        if folder == "tests":
            found += [f"  {child.name}/" for child in sorted((ROOT / folder).iterdir()) if child.is_dir() and any(child.glob("test_*.py"))]
            continue
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT / folder)
            if path.suffix not in (".py", ".yaml") or path.name in ("__init__.py", "__main__.py"):
                continue
            name = "  " + str(relative)
            found.append(f"{name:<38} {summary(path)}".rstrip())
    return found


def main() -> int:
    """Rewrite or check README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    new = before + START + "\n```\n" + "\n".join(lines()) + "\n```\n" + END + after
    if "--check" in sys.argv[1:]:
        return int(new != text)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
