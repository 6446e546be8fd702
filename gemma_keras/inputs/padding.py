"""Rows of token ids to one width: the one padding of the project.

Shape letters: b rows, t positions.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

_TRAINING_MULTIPLE = 16


def round_up(length: int, multiple: int) -> int:
    """The next multiple: few distinct widths mean few compilations."""
    return -(-length // multiple) * multiple


def training_width(sequences: Sequence[Sequence[int]], max_length: int) -> int:
    """t for rows to train on, none longer than `max_length`: the longest, rounded up so that few shapes are
    compiled."""
    return min(round_up(max(map(len, sequences)), _TRAINING_MULTIPLE), max_length)


def padded(
    sequences: Sequence[Sequence[int]],
    pad_token_id: int,
    width: int,
    side: Literal["left", "right"] = "right",
    rows: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences filled up to one width.

    Args:
        sequences: ids, at most `width` each.
        pad_token_id: what padding holds.
        width: t.
        side: where the padding stands: "right" for training and scoring, "left" for prompts that a response follows.
        rows: b, default as many as there are sequences. Rows beyond them hold one padding token as real: attention over
            no key is 0/0.

    Returns:
        token_ids int32 (b, t). is_token bool (b, t), True for a real token.

    Raises:
        ValueError: a sequence longer than `width`, or more of them than `rows`.
    """
    rows = len(sequences) if rows is None else rows
    longest = max(map(len, sequences), default=0)
    if longest > width or len(sequences) > rows:
        raise ValueError(
            f"Expected at most {rows} sequences of at most {width} tokens, got {len(sequences)} of up to {longest}."
        )
    token_ids = np.full((rows, width), pad_token_id, np.int32)
    is_token = np.zeros((rows, width), bool)
    for row, sequence in enumerate(sequences):
        real = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
        token_ids[row, real] = sequence
        is_token[row, real] = True
    is_token[len(sequences) :, 0] = True
    return token_ids, is_token
