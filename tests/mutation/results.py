"""What became of each mutant: a file of JSON lines that a later run reads again, and the table."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from mutants import Mutant

KILLED, SURVIVED, TIMEOUT, UNJUDGED = "killed", "survived", "timeout", "unjudged"
LEAST_KILLED, MOST_EQUIVALENT = 0.95, 0.10


class Results:
    """Verdicts by key, appended as they come; a key that is found needs no run.

    Args:
        path: JSON lines; lines that are cut short, as by a stopped run, are left out.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._found: dict[str, dict] = {}
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        self._is_cut = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self._found[row["key"]] = row

    def get(self, key: str) -> dict | None:
        """The row of a key, or None."""
        return self._found.get(key)

    def add(self, key: str, **row: object) -> None:
        """Keep a row."""
        self._found[key] = {"key": key, **row}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._is_cut else "") + json.dumps(self._found[key]) + "\n")
        self._is_cut = False


def key_of(root: pathlib.Path, text: str, tests: Sequence[str], others: Iterable[str] = ()) -> str:
    """What a verdict depends on: the mutant's text, its tests and their fixtures, and `others`."""
    digest = hashlib.sha256(repr((text, list(tests), *others)).encode())
    paths = {path for test in tests for path in _sources(root / test.split("::")[0])}
    paths |= set((root / "tests").rglob("conftest.py"))
    paths |= set(_sources(root / "tests" / "fixtures"))
    for path in sorted(paths):
        digest.update(repr(str(path.relative_to(root))).encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def _sources(path: pathlib.Path) -> list[pathlib.Path]:
    """A file of tests with the data that lies beside it, or all of a folder."""
    if path.is_file():
        return [path, *(found for found in path.parent.iterdir() if found.is_file() and found.suffix != ".py")]
    return [found for found in path.rglob("*") if found.is_file() and found.suffix != ".pyc"]


def table(mutants: Sequence[Mutant], verdicts: Mapping[str, str]) -> list[str]:
    """A line a file, and one for all: mutants, killed, survived, equivalent (argued), percent killed of the others.

    Args:
        verdicts: by identifier; mutants that are argued to be equivalent are not run, and have none.
    """
    lines = [
        "| file | mutants | killed | survived | equivalent (argued) | killed of the others |",
        "|---|---|---|---|---|---|",
    ]
    files = sorted({mutant.file for mutant in mutants})
    for name, part in [*((file, [m for m in mutants if m.file == file]) for file in files), ("all", mutants)]:
        equivalent = sum(bool(mutant.equivalent) for mutant in part)
        survived = sum(verdicts.get(mutant.identifier) == SURVIVED for mutant in part)
        killed = sum(verdicts.get(mutant.identifier) in (KILLED, TIMEOUT) for mutant in part)
        share = f"{100 * killed / (killed + survived):.1f} %" if killed + survived else ""
        lines.append(f"| {name} | {len(part)} | {killed} | {survived} | {equivalent} | {share} |")
    return lines


def complaints(mutants: Sequence[Mutant], verdicts: Mapping[str, str]) -> list[str]:
    """Why these verdicts are not good enough; empty where they are."""
    survived = [mutant for mutant in mutants if verdicts.get(mutant.identifier) == SURVIVED]
    run = [mutant for mutant in mutants if not mutant.equivalent]
    found = [f"A formula's mutant survived: {mutant}" for mutant in survived if mutant.is_formula]
    found += [
        f"Not judged, as no test was the one to fail: {mutant}. Run it again; take one that is no program off the list."
        for mutant in run
        if verdicts.get(mutant.identifier) == UNJUDGED
    ]
    if run and len(survived) > (1 - LEAST_KILLED) * len(run):
        share = 100 * (1 - len(survived) / len(run))
        found.append(
            f"{share:.1f} % of the {len(run)} mutants are killed; expected at least {100 * LEAST_KILLED:.0f} %."
        )
    if len(mutants) - len(run) > MOST_EQUIVALENT * len(mutants):
        share = 100 * (1 - len(run) / len(mutants))
        found.append(f"{share:.1f} % are argued to be equivalent; expected at most {100 * MOST_EQUIVALENT:.0f} %.")
    return found
