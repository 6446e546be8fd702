"""Rows that were there before: the same but for case, spaces and punctuation, or nearly the same.

Near duplicates are those whose sets of word 5-grams have a Jaccard similarity of at least `near` with an earlier row
that was kept, as MinHash estimates it (Broder 1997). Locality sensitive hashing finds the candidates, as in Lee et al.
2021, arXiv:2107.06499, appendix A, with fewer hashes than there: 256 for 9,000. The candidates are not compared word by
word, since the texts are not kept: only hashes are.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gemma_keras.install_advice import install_command
from pipelines.data.canonical import Piece
from pipelines.data.contents import normalized
from pipelines.host.errors import ConfigError
from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.stages.data_filtering.filters.base import KEEP, MemoryFilter, Verdict

SHINGLE = 5
"""Words of an n-gram; a text of fewer is one of its own."""
PERMUTATIONS = 256
EXACT_BYTES = 16
_FALSE_POSITIVES, _FALSE_NEGATIVES = 0.1, 0.9
"""What the bands are chosen for: candidates are compared again, rows that are no candidates are not."""


class DuplicatesOptions(Named):
    """What stands beside the name in `{name: duplicates, ...}`."""

    near: float | None = Field(
        None, description="Similarity from which a row counts as there before, such as 0.8; default equal texts alone."
    )
    of: Literal["row", "prompt"] = Field("row", description="What is compared: all texts of a row, or its prompt.")

    def problems(self) -> Iterator[Problem]:
        """A similarity that is none, or no package for it."""
        if self.near is None:
            return
        if not 0 < self.near < 1:
            yield ("near",), f"{self.near:g} is no similarity between two texts; expected over 0 and under 1, e.g. 0.8"
        if importlib.util.find_spec("datasketch") is None:
            yield ("near",), f"near duplicates need datasketch, which is not installed: {install_command('filters')}"


class Duplicates(MemoryFilter):
    """`filters: [duplicates]`."""

    name = "duplicates"
    summary = "rows that were there before, exactly or nearly"
    Options = DuplicatesOptions
    options: DuplicatesOptions

    def __init__(self, options: Any, use: Any) -> None:
        """See `Filter`."""
        super().__init__(options, use)
        self._exact: dict[bytes, str] = {}
        self._hashes: dict[int, np.ndarray] = {}
        self._origins: list[str] = []
        self._near: Any = None

    def signature(self, pieces: Sequence[Piece]) -> np.ndarray:
        """A hash of the texts and, where near ones count, `PERMUTATIONS` of 32 bits."""
        texts = [piece.text for piece in pieces if self.options.of == "row" or piece.part in ("prompt", "text")]
        # A separator that no normalized text holds, so that no text runs into the next.
        plain = [normalized(text) for text in texts]
        digest = hashlib.sha256("\n".join(plain).encode()).digest()[:EXACT_BYTES]
        exact = np.frombuffer(digest, np.uint8)
        return exact if self.options.near is None else np.concatenate([exact, _min_hash(plain)])

    def meet(self, signature: np.ndarray, origin: str) -> Verdict:
        """See `MemoryFilter.meet`."""
        exact = signature[:EXACT_BYTES].tobytes()
        if exact in self._exact:
            return Verdict("the same text", f"as {self._exact[exact]}")
        if self.options.near is not None:
            values = signature[EXACT_BYTES:].view(np.uint32)
            found = self._nearest(values)
            if found is not None:
                return Verdict("nearly the same text", f"as {self._origins[found[0]]}, similarity {found[1]:.2f}")
            self._remember(values, origin)
        self._exact[exact] = origin
        return KEEP

    def figures(self) -> dict[str, Any]:
        """`remembered`: rows that later ones are compared with."""
        return {"remembered": len(self._exact)}

    def _nearest(self, values: np.ndarray) -> tuple[int, float] | None:
        """The most similar kept row, the first of several, and its similarity; None under `near`."""
        if self._near is None:
            self._near = _index(float(self.options.near or 0))
        candidates = sorted(self._near.query(_as_min_hash(values)))
        similar = [(one, float(np.mean(self._hashes[one] == values))) for one in candidates]
        best = max(similar, key=lambda one: (one[1], -one[0]), default=None)
        return best if best is not None and best[1] >= float(self.options.near or 0) else None

    def _remember(self, values: np.ndarray, origin: str) -> None:
        number = len(self._origins)
        self._near.insert(number, _as_min_hash(values), check_duplication=False)
        self._hashes[number] = values.copy()
        self._origins.append(origin)


def shingles(texts: Sequence[str]) -> set[str]:
    """The word n-grams of normalized texts, none across two of them."""
    found = set()
    for text in texts:
        words = text.split()
        found |= {" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
    return found


def _min_hash(texts: Sequence[str]) -> np.ndarray:
    sketch = _datasketch().MinHash(num_perm=PERMUTATIONS, seed=1)
    sketch.update_batch([one.encode() for one in sorted(shingles(texts))])
    return sketch.hashvalues.astype(np.uint32).view(np.uint8)


def _as_min_hash(values: np.ndarray) -> Any:
    return _datasketch().LeanMinHash(seed=1, hashvalues=values, scheme="affine32")


def _index(near: float) -> Any:
    return _datasketch().MinHashLSH(threshold=near, num_perm=PERMUTATIONS, weights=(_FALSE_POSITIVES, _FALSE_NEGATIVES))


@functools.cache
def _datasketch() -> Any:
    try:
        import datasketch
    except ImportError:
        raise ConfigError(f"near duplicates: datasketch is not installed: {install_command('filters')}") from None
    return datasketch
