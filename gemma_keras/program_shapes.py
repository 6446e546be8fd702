"""How many shapes each program has been called with: where a backend compiles, it compiles once for each."""

import contextlib
import contextvars
from collections.abc import Iterator

_counts: contextvars.ContextVar[dict[str, int] | None] = contextvars.ContextVar("shapes of programs", default=None)
_met = [0]


@contextlib.contextmanager
def counting_shapes() -> Iterator[dict[str, int]]:
    """Inside it shapes are counted: name of a program → how many it was called with; where several have one name, as
    those of two models, of the one with the most."""
    counts: dict[str, int] = {}
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def shapes_met() -> int:
    """Shapes that all programs of this process have met so far: a call that leaves it as it was compiled nothing."""
    return _met[0]


def meet_shape(name: str, count: int) -> None:
    """Called when a program meets a shape for the first time; `count`: with it that program has met so many."""
    _met[0] += 1
    counts = _counts.get()
    if counts is not None:
        counts[name] = max(counts.get(name, 0), count)
