"""Packs documents into rows of one length, so that training wastes few positions on padding.

Positions restart at 0 in every document and `segment_ids` keep documents apart (1, 2, ... in a row, 0 is padding), so
that a packed document gets the logits it would get alone. A document is never split: one longer than a row is an error,
a drop or a cut that the caller chose, and counted.
"""

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from pipelines.host.errors import DataError


class Encoded(Protocol):
    """What `gemma_keras.chat.EncodedExample` has."""

    @property
    def token_ids(self) -> list[int]:
        """Ids."""

    @property
    def is_target(self) -> list[bool]:
        """True where a token bears loss."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Examples that fit a length, and how many did not.

    Args:
        examples: the examples, those cut included. kept: int index of each in the input.
        dropped, truncated: how many were over-long.
    """

    examples: list
    kept: list[int]
    dropped: int
    truncated: int


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """Documents side by side. Lists of equal length: ids, True where a token bears loss, position in its document,
    document from 1."""

    token_ids: list[int]
    is_target: list[bool]
    positions: list[int]
    segment_ids: list[int]


def fit_length(
    examples: Sequence, max_length: int, overlong: Literal["error", "drop", "truncate"], origins: Sequence[str] = ()
) -> Fitted:
    """Deals with examples of more than `max_length` tokens.

    Args:
        examples: dataclasses with `token_ids` and `is_target`.
        max_length: tokens.
        overlong: "error" stops, "drop" leaves them out, "truncate" cuts their end; one left without a target is dropped
            then.
        origins: "file:line" of each example, for the message.

    Raises:
        DataError: "error" and an example is too long, or nothing is left.
    """
    kept, indices, dropped, truncated = [], [], 0, 0
    for index, example in enumerate(examples):
        length = len(example.token_ids)
        if length > max_length:
            if overlong == "error":
                place = origins[index] if origins else f"example:{index + 1}"
                raise DataError(
                    f"{place}: {length} tokens, more than max_length {max_length}. Raise max_length, or set `overlong: "
                    "drop`."
                )
            cut = dataclasses.replace(
                example, token_ids=example.token_ids[:max_length], is_target=example.is_target[:max_length]
            )
            if overlong == "drop" or not any(cut.is_target[1:]):
                dropped += 1
                continue
            example, truncated = cut, truncated + 1
        kept.append(example)
        indices.append(index)
    if not kept:
        raise DataError(
            f"{origins[0] if origins else 'data:1'}: all {len(examples)} examples are over max_length {max_length} "
            "tokens. Raise it."
        )
    return Fitted(kept, indices, dropped, truncated)


def pack(examples: Sequence[Encoded], row_length: int) -> list[PackedRow]:
    """Packs examples into rows of at most `row_length` tokens: the longest first, each into the fullest row with room
    for it.

    Args:
        examples: each of at most `row_length` tokens, see `fit_length`.
        row_length: tokens a row.

    Returns:
        rows, each with at least one example; none is split.

    Raises:
        ValueError: an example longer than a row, or an empty one.
    """
    lengths = [len(example.token_ids) for example in examples]
    if examples and (max(lengths) > row_length or min(lengths) < 1):
        raise ValueError(
            f"Expected examples of 1 to {row_length} tokens, got {min(lengths)} to {max(lengths)}. Call fit_length "
            "first."
        )
    return [_join([examples[i] for i in group]) for group in best_fit(lengths, row_length)]


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Which of `lengths` share a row: the longest first, each into the fullest row with room for it.

    Args:
        lengths: int, each at most `row_length`.

    Returns:
        indices into `lengths`, a rising list a row.
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, row), sorted: the fullest first
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect.bisect_left(rooms, (lengths[index], -1))
        if place < len(rooms):
            room, row = rooms.pop(place)
        else:
            room, row = row_length, len(groups)
            groups.append([])
        groups[row].append(index)
        bisect.insort(rooms, (room - lengths[index], row))
    return [sorted(group) for group in groups]


def _join(examples: list[Encoded]) -> PackedRow:
    token_ids: list[int] = []
    is_target: list[bool] = []
    positions: list[int] = []
    segment_ids: list[int] = []
    for number, example in enumerate(examples, 1):
        token_ids += example.token_ids
        is_target += [False, *example.is_target[1:]]  # nothing before the first token predicts it
        positions += range(len(example.token_ids))
        segment_ids += [number] * len(example.token_ids)
    return PackedRow(token_ids, is_target, positions, segment_ids)


def packing_efficiency(rows: Sequence[PackedRow], row_length: int) -> float:
    """Share of positions that hold a token, in [0, 1]."""
    return float(np.mean([len(row.token_ids) for row in rows]) / row_length) if rows else 0.0
