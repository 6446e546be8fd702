"""The same token ids for every library."""

import numpy as np

FIRST_ORDINARY_ID = 8  # below it stand padding, end of sequence and their kin


def token_ids(case, rows: int, length: int) -> np.ndarray:
    """Random ordinary ids: int32 (rows, length), always the same for a case."""
    return np.random.default_rng(17).integers(
        FIRST_ORDINARY_ID, case.size.vocabulary_size, (rows, length), dtype=np.int32
    )


def training_rows(case) -> np.ndarray:
    """int32 (batch_size * steps + odd_rows, prompt_length)."""
    return token_ids(case, case.batch_size * case.steps + case.odd_rows, case.prompt_length)


def gradient_like(shape) -> np.ndarray:
    """What an optimizer alone is given: float32, always the same for a shape."""
    return np.random.default_rng(17).standard_normal(tuple(shape), dtype=np.float32)


def expect_shape(actual, expected) -> None:
    """A library that stops early or pads would be timed for other work.

    Raises:
        RuntimeError: the shapes differ.
    """
    if tuple(actual) != tuple(expected):
        raise RuntimeError(
            f"The library returned another amount of work: expected {tuple(expected)}, got {tuple(actual)}"
        )


def even_share(rows) -> list[float]:
    """The reward of the RL case: the share of even ids in each answer. Costs nothing and differs between answers."""
    return [sum(1 for token in row if token % 2 == 0) / max(1, len(row)) for row in rows]
