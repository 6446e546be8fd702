"""The list of mutants: those with a name, from `named.toml`, and those that the fixed operators draw, a few of each
file in `files.toml`; `equivalent.toml` argues about the drawn ones that no test can tell from the original.

Every entry must fit the source as it is: one that does not is an error, so that the lists follow the code.
"""

import dataclasses
import hashlib
import pathlib
import tomllib
from typing import Any

import operators

FORMULA = "formula"
NAMED = "named"


class StaleError(Exception):
    """Entries of the lists that do not fit the source."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A source file with one fault.

    Attributes:
        file: from the root. line: of the fault. operator: `named`, or one of the fixed operators.
        original, replacement: the fault. text: the whole file with it.
        tests: arguments for pytest, those that should notice first.
        is_formula: one of the formulas, of which every mutant must be noticed.
        equivalent: why no test can notice it, or empty.
        digest: of what it changes, without its position.
    """

    file: str
    line: int
    operator: str
    original: str
    replacement: str
    text: str
    tests: tuple[str, ...]
    is_formula: bool
    equivalent: str
    digest: str

    @property
    def identifier(self) -> str:
        """`file:digest`: stays while the faulty line and the fault stay."""
        return f"{self.file}:{self.digest}"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line} [{self.operator} {self.digest}]"
        return f"{place} {_short(self.original)} -> {_short(self.replacement)}"


def read(root: pathlib.Path, lists: pathlib.Path) -> list[Mutant]:
    """All mutants, by file and line.

    Args:
        root: of the source tree. lists: the folder of the three files.

    Raises:
        StaleError: naming each entry whose file, text, test or drawn mutant is not there.
    """
    files: dict[str, dict[str, Any]] = _toml(lists / "files.toml").get("files", {})
    named = _toml(lists / "named.toml").get("mutant", [])
    argued = {entry["id"]: entry["because"] for entry in _toml(lists / "equivalent.toml").get("mutant", [])}
    stale: list[str] = []
    found: list[Mutant] = []
    for file, options in files.items():
        path = root / file
        if not path.is_file():
            stale.append(f"files.toml: no file {file}")
            continue
        text = path.read_text(encoding="utf-8")
        is_formula = options.get("kind") == FORMULA
        own = [_named(entry, file, text, options, is_formula, stale) for entry in named if entry["file"] == file]
        found += [mutant for mutant in own if mutant is not None]
        texts = {mutant.text for mutant in own if mutant is not None}
        for change in operators.draw(text, options["drawn"]):
            if change.applied(text) not in texts:
                found.append(_drawn(change, file, text, options, is_formula, argued))
    stale += [f"named.toml: {entry['file']} is not in files.toml" for entry in named if entry["file"] not in files]
    drawn = {mutant.identifier for mutant in found if mutant.operator != NAMED}
    stale += [f"equivalent.toml: no mutant {identifier} is drawn" for identifier in argued if identifier not in drawn]
    for test in sorted({test for mutant in found for test in mutant.tests}):
        if not (root / test.split("::")[0]).exists():
            stale.append(f"no tests {test}")
    if stale:
        raise StaleError("These entries do not fit the source; mend or remove them:\n  " + "\n  ".join(stale))
    return sorted(found, key=lambda mutant: (mutant.file, mutant.line, mutant.digest))


def _named(
    entry: dict[str, str], file: str, text: str, options: dict[str, Any], is_formula: bool, stale: list[str]
) -> Mutant | None:
    original, replacement = entry["original"], entry["replacement"]
    if text.count(original) != 1:
        stale.append(f"named.toml: {file} has {text.count(original)} times, expected once: {original}")
        return None
    start = text.index(original)
    tests = [*entry.get("tests", []), *(test for test in options["tests"] if test not in entry.get("tests", []))]
    return Mutant(
        file=file,
        line=text[:start].count("\n") + 1,
        operator=NAMED,
        original=original,
        replacement=replacement,
        text=text.replace(original, replacement),
        tests=tuple(tests),
        is_formula=is_formula,
        equivalent=entry.get("equivalent", ""),
        digest=hashlib.sha256(repr((original, replacement)).encode()).hexdigest()[:8],
    )


def _drawn(
    change: operators.Change, file: str, text: str, options: dict[str, Any], is_formula: bool, argued: dict[str, str]
) -> Mutant:
    return Mutant(
        file=file,
        line=change.line,
        operator=change.operator,
        original=change.original,
        replacement=change.replacement,
        text=change.applied(text),
        tests=tuple(options["tests"]),
        is_formula=is_formula,
        equivalent=argued.get(f"{file}:{change.digest}", ""),
        digest=change.digest,
    )


def _toml(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _short(text: str) -> str:
    words = " ".join(text.split()) or "(nothing)"
    return words if len(words) <= 90 else words[:87] + "..."
