"""Sequences that begin alike, in one row with their beginning once: answers to one prompt, or the two of a pair.

Each end continues the beginning as a branch of its own (`gemma_keras.limits.BRANCHES`): it sees the beginning and
itself, at the positions that it has alone, so a model computes for it what it computes alone. What is shared is read
once, forwards and backwards.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gemma_keras.limits import BRANCHES


@dataclasses.dataclass(frozen=True)
class Branches:
    """Sequences with one beginning.

    Args:
        beginning: its ids, at least one. ends: of each sequence the ids behind it; a sequence alone is a beginning with
            one end of nothing.
    """

    beginning: Sequence[int]
    ends: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.beginning) + sum(map(len, self.ends))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where `Branches` lie.

    Args:
        row: of the arrays. start: of the beginning. starts: of each end.
        length: of the beginning.
    """

    row: int
    start: int
    starts: Sequence[int]
    length: int

    def positions(self, sequence: int, indices: np.ndarray) -> np.ndarray:
        """Columns of the ids at `indices`, int (m,), of one of the sequences."""
        return np.where(indices < self.length, self.start, self.starts[sequence] - self.length) + indices


def branches_of(sequences: Sequence[Sequence[int]]) -> Branches:
    """Sequences by how far they begin alike; of each at least the last id is left to its end.

    Args:
        sequences: of two ids or more, the first of which is the same.
    """
    first, most = sequences[0], min(map(len, sequences)) - 1
    length = next((i for i in range(most) if any(ids[i] != first[i] for ids in sequences)), most)
    return Branches(first[:length], [ids[length:] for ids in sequences])


def joined_items(items: Sequence[Sequence[Sequence[int]]]) -> list[Branches] | None:
    """Each item's sequences by how far they begin alike; None where an item has but one, or its sequences do not begin
    alike."""
    can_join = all(len(item) > 1 and min(map(len, item)) > 1 and len({ids[0] for ids in item}) == 1 for item in items)
    return [branches_of(item) for item in items] if can_join else None


def lay_out_branches(
    families: Sequence[Branches], rows: Sequence[Sequence[int]], shape: tuple[int, int], pad_token_id: int = 0
) -> tuple[dict[str, np.ndarray], list[Place]]:
    """Families side by side as a model takes them.

    Args:
        families: their ids. rows: of each row which of them stand in it. shape: (b, t), of at least these rows.

    Returns:
        arrays: token_ids, positions, segment_ids int32 (b, t) and padding_mask bool (b, t), True for a real token.
        places: of each family.
    """
    token_ids = np.full(shape, pad_token_id, np.int32)
    positions, segments = np.zeros((2, *shape), np.int32)
    places: dict[int, Place] = {}
    for row, together in enumerate(rows):
        end = 0
        for segment, number in enumerate(together, 1):
            family = families[number]
            length, starts, first = len(family.beginning), [], end
            parts = [(segment, 0, family.beginning)]
            parts += [(branch * BRANCHES + segment, length, ids) for branch, ids in enumerate(family.ends, 1)]
            for part_segment, position, ids in parts:
                start, end = end, end + len(ids)
                token_ids[row, start:end], segments[row, start:end] = ids, part_segment
                positions[row, start:end] = position + np.arange(len(ids))
                starts.append(start)
            places[number] = Place(row, first, starts[1:], length)
    arrays = {
        "token_ids": token_ids,
        "padding_mask": segments > 0,
        "positions": positions,
        "segment_ids": segments,
    }
    return arrays, [places[number] for number in range(len(families))]
