"""Rows that hold questions or answers of the benchmarks that a model will be measured on.

A row is dropped where `n` words in a row are those of a test row, after `contents.normalized`, so that case, spaces and
punctuation hide nothing; n = 13 as in Brown et al. 2020, arXiv:2005.14165, appendix C. An n-gram of more than
`MOST_ROWS` rows of a benchmark is its template, or a phrase that everybody uses, and counts for nothing (there: of more
than 10 documents). A test text of fewer words counts where it stands whole, if it has `LEAST_WORDS`.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipelines.data.canonical import Piece
from pipelines.data.contents import normalized
from pipelines.data.jsonl import read_jsonl
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import find_path
from pipelines.schema.base import Problem, Settings
from pipelines.schema.named import Named
from pipelines.schema.roles import LocalFile
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, Surroundings, Verdict
from pipelines.tasks.benchmarks.choice import HARNESS_PREFIX, choose, set_folders

MOST_ROWS = 10
LEAST_WORDS = 8
"""Of a test text that is looked for: shorter ones stand in too many places by chance."""
SHOWN = 3
"""Test rows that a rejected row names."""
_MASK = (1 << 64) - 1


class TestSet(Settings):
    """Test rows of one's own."""

    __test__ = False  # for pytest, which takes the name for a test

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What the report calls it.")
    path: Annotated[str, LocalFile(must_exist=True)] = Field(
        min_length=1, description="JSON lines file, relative to the YAML file."
    )
    columns: list[str] = Field([], description="Columns with its texts; default all that hold text.")


class DecontaminateOptions(Named):
    """What stands beside the name in `{name: decontaminate, ...}`."""

    suite: str | list[str] = Field(
        [], description="gemma_paper or another suite, a benchmark such as gsm8k, or a list of them."
    )
    data: Annotated[str | None, LocalFile(must_exist=True)] = Field(
        None, min_length=1, description="Folder with the benchmarks' rows."
    )
    against: list[TestSet] = Field([], description="Test sets of one's own: {name, path}.")
    n: int = Field(13, ge=5, le=50, description="Words of an n-gram; 8 finds more, and more that is chance.")
    coverage: float = Field(
        0.0, ge=0, le=1, description="Least share of a row's words within such n-grams; 0: any n-gram drops it."
    )

    @property
    def names(self) -> list[str]:
        """The suites and benchmarks."""
        return [self.suite] if isinstance(self.suite, str) else self.suite

    def problems(self) -> Iterator[Problem]:
        """Nothing to compare with, unknown names, or no place where the rows lie."""
        if not self.names and not self.against:
            yield (), "decontaminate compares with nothing; expected suite: gemma_paper with data, or against: [...]"
        try:
            choose(self.names)
        except ValueError as error:
            yield ("suite",), str(error)
        if any(name.startswith(HARNESS_PREFIX) for name in self.names):
            yield ("suite",), "tasks of lm-eval's are not read here; give their rows as a file: against: [{name, path}]"
        if self.names and self.data is None:
            yield ("data",), "needs the folder with the benchmarks' rows; a filter reads nothing of the hub"
        known = [one.name for one in self.against]
        for place, name in enumerate(known):
            if name in known[:place]:
                yield ("against", place, "name"), f"two test sets are called {name!r}; expected a name for each"


@dataclasses.dataclass(frozen=True)
class Index:
    """n-grams of test rows.

    Attributes:
        hashes: uint64 (k,), rising. rows: int32 (k,), the row that each is of, a place in `places`.
        lengths: words of the n-grams that there are, most first.
        places: benchmark, and number of the row from 1. sizes: benchmark → rows; texts that are too short make none.
    """

    hashes: np.ndarray
    rows: np.ndarray
    lengths: tuple[int, ...]
    places: list[tuple[str, int]]
    sizes: dict[str, dict[str, int]]

    def find(self, words: Sequence[str]) -> tuple[set[int], np.ndarray]:
        """The test rows that share an n-gram with a text, and bool (words,): which of its words lie in one."""
        found: set[int] = set()
        covered = np.zeros(len(words), bool)
        numbers = word_hashes(words)
        for n in self.lengths:
            grams = n_gram_hashes(numbers, n)
            first = np.searchsorted(self.hashes, grams, "left")
            last = np.searchsorted(self.hashes, grams, "right")
            for start in np.flatnonzero(last > first):
                found.update(self.rows[first[start] : last[start]].tolist())
                covered[start : start + n] = True
        return found, covered


class Decontaminate(Filter):
    """`filters: [{name: decontaminate, ...}]`."""

    name = "decontaminate"
    summary = "rows that hold a benchmark's test rows"
    Options = DecontaminateOptions
    options: DecontaminateOptions
    read: Index

    def __init__(self, options: Any, use: Any) -> None:
        """See `Filter`."""
        super().__init__(options, use)
        self._met: dict[str, set[int]] = {}
        self._rows: dict[str, list[float]] = {}

    def open(self, surroundings: Surroundings) -> None:
        """Reads the test rows."""
        sets = dict(self._sets(surroundings.base_folder))
        self.read = make_index(sets, self.options.n)
        short = {name: sizes for name, sizes in self.read.sizes.items() if sizes["looked_for"] < sizes["rows"] / 2}
        for name, sizes in short.items():
            surroundings.warn(
                f"decontaminate: of {name} only {sizes['looked_for']} of {sizes['rows']} test rows have a text of "
                f"{LEAST_WORDS} words that is not its template; the others are not looked for"
            )

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """All texts together, whoever says them: a question is learned from a prompt too."""
        met: set[int] = set()
        inside, total = 0, 0
        for piece in pieces:
            words = normalized(piece.text).split()
            found, covered = self.read.find(words)
            met |= found
            inside, total = inside + int(covered.sum()), total + len(words)
        if not met:
            return KEEP
        coverage = inside / total
        places = [self.read.places[one] for one in sorted(met)]
        by_set: dict[str, list[int]] = {}
        for name, number in places:
            by_set.setdefault(name, []).append(number)
        shown = [f"{name}:{number}" for name, number in places[:SHOWN]]
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        reason = "test rows" if coverage >= self.options.coverage else ""
        detail = f"{', '.join(shown)}{more}, coverage {coverage:.2f}"
        return Verdict(reason, detail, notes={"met": by_set, "coverage": round(coverage, 4)})

    def add(self, verdict: Verdict) -> None:
        """See `Filter.add`."""
        for name, numbers in verdict.notes.get("met", {}).items():
            self._met.setdefault(name, set()).update(numbers)
            self._rows.setdefault(name, []).append(verdict.notes["coverage"])

    def figures(self) -> dict[str, Any]:
        """`benchmarks`: name → its `rows`, how many were `looked_for` and `met`; `in_rows` of the data that hold one,
        their mean and largest `coverage`."""
        return {
            "benchmarks": {
                name: {
                    **sizes,
                    "met": len(self._met.get(name, ())),
                    "in_rows": len(self._rows.get(name, ())),
                    "mean_coverage": float(np.mean(self._rows[name])) if name in self._rows else None,
                    "largest_coverage": max(self._rows[name]) if name in self._rows else None,
                }
                for name, sizes in self.read.sizes.items()
            }
        }

    def _sets(self, base_folder: Path) -> Iterator[tuple[str, list[list[str]]]]:
        """Name → the texts of each test row."""
        data = None if self.options.data is None else find_path(self.options.data, base_folder)
        for one in choose(self.options.names):
            if one.benchmark is None:
                continue
            folders = set_folders(data, one.benchmark)
            if not folders:
                raise DataError(
                    f"{data}:1: no rows of {one.name}: expected the folder {one.benchmark.local}. Bring it, or name "
                    "the benchmarks that are there"
                )
            parts = dict.fromkeys(one.benchmark.tasks.values())
            tested = one.benchmark.tested
            rows = [row for folder in folders for part in parts for row in one.benchmark.read(folder, part)[tested]]
            yield one.name, [list(texts_in(row)) for row in rows]
        for own in self.options.against:
            path = find_path(own.path, base_folder)
            if path is None:
                raise ConfigError(f"decontaminate: no file {own.path!r} (relative to {base_folder})")
            yield own.name, [list(self._own_texts(row.values, own, row.origin)) for row in read_jsonl(path)]

    def _own_texts(self, row: Mapping[str, Any], own: TestSet, origin: str) -> Iterator[str]:
        for column in own.columns:
            if column not in row:
                raise DataError(f"{origin}: no column {column!r}; the row has {', '.join(map(repr, row))}")
        yield from texts_in({column: row[column] for column in own.columns} if own.columns else row)


def make_index(sets: Mapping[str, Iterable[Sequence[str]]], n: int) -> Index:
    """The index of some sets of test rows.

    Args:
        sets: name → of each row its texts. n: words of an n-gram.
    """
    all_hashes, all_rows, lengths = [], [], {n}
    places: list[tuple[str, int]] = []
    sizes: dict[str, dict[str, int]] = {}
    for name, rows in sets.items():
        hashes, owners, first = [], [], len(places)
        for number, texts in enumerate(rows, 1):
            places.append((name, number))
            grams = [_grams_of(normalized(text).split(), n, lengths) for text in texts]
            unique = np.unique(np.concatenate([*grams, np.empty(0, np.uint64)]))
            hashes.append(unique)
            owners.append(np.full(len(unique), len(places) - 1, np.int32))
        of_set = np.concatenate([*hashes, np.empty(0, np.uint64)])
        owner = np.concatenate([*owners, np.empty(0, np.int32)])
        _, inverse, counts = np.unique(of_set, return_inverse=True, return_counts=True)
        is_telling = counts[inverse] <= MOST_ROWS
        all_hashes.append(of_set[is_telling])
        all_rows.append(owner[is_telling])
        looked_for = len(np.unique(owner[is_telling]))
        sizes[name] = {"rows": len(places) - first, "looked_for": looked_for}
    hashes_of_all = np.concatenate([*all_hashes, np.empty(0, np.uint64)])
    order = np.argsort(hashes_of_all, kind="stable")
    rows_of_all = np.concatenate([*all_rows, np.empty(0, np.int32)])
    return Index(hashes_of_all[order], rows_of_all[order], tuple(sorted(lengths, reverse=True)), places, sizes)


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)


def word_hashes(words: Sequence[str]) -> np.ndarray:
    """uint64 (words,): the same in every process, as Python's own hashes are not."""
    return np.array([_word_hash(word) for word in words], np.uint64)


def n_gram_hashes(numbers: np.ndarray, n: int) -> np.ndarray:
    """uint64 (words - n + 1,): of every n words in a row, a sum of theirs times odd numbers, modulo 2**64; none where
    there are fewer."""
    count = len(numbers) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    found = np.full(count, n, np.uint64)
    factor = 1
    for offset in range(n):
        factor = factor * 0x9E3779B97F4A7C15 & _MASK
        found += numbers[offset : offset + count] * np.uint64(factor)
    return found


def _grams_of(words: Sequence[str], n: int, lengths: set[int]) -> np.ndarray:
    if len(words) < min(LEAST_WORDS, n):
        return np.empty(0, np.uint64)
    size = min(n, len(words))
    lengths.add(size)
    return n_gram_hashes(word_hashes(words), size)


_known_words: dict[str, int] = {}
_MOST_KNOWN = 500_000


def _word_hash(word: str) -> int:
    number = _known_words.get(word)
    if number is None:
        if len(_known_words) >= _MOST_KNOWN:
            _known_words.clear()
        number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        _known_words[word] = number
    return number
