"""What a filter is: a function from the texts of a row to a verdict."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from pipelines.data.canonical import Piece
from pipelines.schema.base import Use
from pipelines.schema.named import Named


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says of a row.

    Args:
        reason: why it is dropped, one of a few texts that can be counted; "" keeps it.
        detail: what of this row is meant.
        changes: index of a piece → its text from now on, of a row that is kept.
        notes: plain JSON for the filter's `add`.
    """

    reason: str = ""
    detail: str = ""
    changes: Mapping[int, str] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def plain(self) -> list[Any]:
        """As JSON; `of_plain` reads it."""
        return [self.reason, self.detail, {str(index): text for index, text in self.changes.items()}, dict(self.notes)]

    @classmethod
    def of_plain(cls, value: Sequence[Any]) -> "Verdict":
        """What `plain` made."""
        reason, detail, changes, notes = value
        return cls(reason, detail, {int(index): text for index, text in changes.items()}, notes)


KEEP = Verdict()


class Surroundings(Protocol):
    """What a filter may need beside its options; a stage's context is one."""

    base_folder: Path
    inputs: dict[str, Path]

    def model_source(self, from_: str | None) -> str | Path:
        """A folder or file for a stage's name or a path."""

    def warn(self, message: str) -> None:
        """Something to know before a figure is believed."""


class Filter(abc.ABC):
    """A filter with its options.

    Attributes:
        name: in the workflow. summary: what it drops, in a few words. Options: what may stand beside the name.
        shows_rows: whether the report may show rows that it dropped.
        read: what `open` has read, for other processes too; None of most.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[Named]] = Named
    shows_rows: ClassVar[bool] = True
    read: Any = None

    def __init__(self, options: Any, use: Use) -> None:
        """`options`: of `Options`. `use`: what the rows are read as."""
        self.options, self.use = options, use

    def open(self, surroundings: Surroundings) -> None:  # noqa: B027  most have nothing to read
        """Read what rows are compared with; once, before the first row."""

    @abc.abstractmethod
    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """The verdict on a row; depends on nothing but its texts and the options."""

    def add(self, verdict: Verdict) -> None:  # noqa: B027  most have nothing to count beside reasons
        """Told of every verdict that counts, in the order of the rows."""

    def figures(self) -> dict[str, Any]:
        """What it has counted beside reasons, for the stage's final figures."""
        return {}


class MemoryFilter(Filter):
    """A filter that compares a row with those before it. Other processes make the signatures, and one compares."""

    @abc.abstractmethod
    def signature(self, pieces: Sequence[Piece]) -> np.ndarray:
        """uint8 (k,), of one length: all of a row that is compared."""

    @abc.abstractmethod
    def meet(self, signature: np.ndarray, origin: str) -> Verdict:
        """The verdict on the next row, which is remembered where it is kept."""

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """See `Filter.judge`: of a row alone nothing can be said."""
        return KEEP


def dropping(reasons: Iterator[tuple[str, str]]) -> Verdict:
    """The verdict with the first of some reasons; that of nothing where there is none."""
    return next((Verdict(reason, detail) for reason, detail in reasons), KEEP)
