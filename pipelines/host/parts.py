"""Work in parts whose results are kept, so that an interrupted stage does the other parts alone."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

Compute = Callable[[], Mapping[str, np.ndarray]]


class Keep(Protocol):
    """Gives the arrays of a part: those that an earlier process kept, else computed, and kept from now on."""

    def __call__(self, name: str, compute: Compute, of: int | None = None) -> Mapping[str, np.ndarray]:
        """`name`: the same for the same part in every process. `of`: how many parts there are."""


def compute_now(name: str, compute: Compute, of: int | None = None) -> Mapping[str, np.ndarray]:
    """A `Keep` that keeps nothing."""
    return compute()
