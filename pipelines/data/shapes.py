"""Which padded lengths a stage uses: few, as each is compiled once, yet more than one where sequences are long."""

from collections.abc import Sequence

import numpy as np

from pipelines.data.batches import bucket

ONE_SHAPE = 128  # tokens; up to here padding costs less than another compilation


def length_rungs(longest: int, max_length: int | None = None) -> list[int]:
    """The padded lengths for sequences of up to `longest` tokens, rising: one up to 128 tokens, above it also a half
    and a quarter of it.

    Args:
        longest: int >= 1. max_length: no length above it.
    """
    top = bucket(longest, max_length)
    return [top] if top <= ONE_SHAPE else sorted({bucket(top // 4), bucket(top // 2), top})


def rung_for(length: int, rungs: Sequence[int]) -> int:
    """The smallest of `rungs` that `length` tokens fit."""
    return next(rung for rung in rungs if length <= rung)


def alike_lengths(rows: np.ndarray, lengths: np.ndarray, micro_batch_size: int) -> list[np.ndarray]:
    """Rows of one update cut into micro-batches of alike length, so that little is padded; the sum over the update
    stays the same.

    Args:
        rows: int (n,), indices into `lengths`. lengths: int, tokens of each example.

    Returns:
        int arrays of at most `micro_batch_size` rows, the shortest first; equal lengths keep their order.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return [ordered[start : start + micro_batch_size] for start in range(0, len(ordered), micro_batch_size)]
