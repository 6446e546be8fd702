"""Continuations whose log-probabilities are asked for, in batches in which nothing is read twice: the choices of a
question share its context, the questions of a group the examples before them.

Shape letters: b rows, t positions, n targets, p tokens of a prefix.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from pipelines.data.batches import bucket
from pipelines.data.branches import Branches, lay_out_branches
from pipelines.data.shapes import length_rungs, rung_for
from pipelines.sampling.prefixes import CACHE_SHARE, common_length, prefix_arrays, prefix_length

MOST_WIDTHS = 4


@dataclasses.dataclass(frozen=True)
class Continuation:
    """What is asked for: how likely some tokens are after others.

    Args:
        context: ids, at least one. ids: those after it, at least one.
        item: continuations of one item, such as the choices of a question, share what they begin with.
        group: items of one group may all begin alike, as with examples before each question.
    """

    context: Sequence[int]
    ids: Sequence[int]
    item: Hashable = None
    group: Hashable = None


@dataclasses.dataclass(frozen=True)
class Family:
    """Continuations that are read in one row.

    Args:
        numbers: which of those asked for. branches: their ids but for the last of each, which predicts nothing.
        firsts: of each, the index in its sequence of the first id that predicts. targets: of each the ids predicted.
    """

    numbers: Sequence[int]
    branches: Branches
    firsts: Sequence[int]
    targets: Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """One forward pass.

    Args:
        families: of its rows. prefix: ids before all of them, perhaps none; prefix_width: p, what they are padded to.
        rows, width: b and t. places: n, a multiple of what the head takes at once.
    """

    families: Sequence[Family]
    prefix: Sequence[int]
    prefix_width: int
    rows: int
    width: int
    places: int

    def arrays(self, pad_token_id: int) -> dict[str, np.ndarray]:
        """What a model takes: token_ids, positions, segment_ids int32 (b, t), padding_mask bool (b, t); target_ids,
        target_rows, target_positions int32 (n,), in the order of the families' targets and then anything; behind a
        prefix also key_positions and key_segments int32 (b, p + t), the prefix padded on the left."""
        before = len(self.prefix)
        laid = [_without(family.branches, before) for family in self.families]
        alone = [[number] for number in range(len(laid))]
        arrays, places = lay_out_branches(laid, alone, (self.rows, self.width), pad_token_id)
        arrays["positions"] = np.where(arrays["padding_mask"], arrays["positions"] + before, 0).astype(np.int32)
        columns, rows, ids = [], [], []
        for family, place in zip(self.families, places, strict=True):
            for side, (first, targets) in enumerate(zip(family.firsts, family.targets, strict=True)):
                columns.append(place.positions(side, first - before + np.arange(len(targets))))
                rows.append(np.full(len(targets), place.row))
                ids.append(np.asarray(targets))
        for name, values in (("target_positions", columns), ("target_rows", rows), ("target_ids", ids)):
            arrays[name] = np.zeros(self.places, np.int32)
            flat = np.concatenate(values)
            arrays[name][: len(flat)] = flat
        if self.prefix:
            prefix = prefix_arrays(self.prefix, self.prefix_width, pad_token_id)
            for name, own in (("key_positions", "positions"), ("key_segments", "segment_ids")):
                shared = np.broadcast_to(prefix[own], (self.rows, self.prefix_width))
                arrays[name] = np.concatenate([shared, arrays[own]], axis=1)
        return arrays

    @property
    def tokens(self) -> int:
        """Those that are read, without padding and prefix."""
        return sum(len(family.branches) - len(self.prefix) for family in self.families)


def plan_batches(
    asked: Sequence[Continuation], batch_tokens: int, max_length: int, chunk: int
) -> tuple[list[Batch], int]:
    """All continuations, each in one batch; a function of the whole list, so that whoever computes a part of it again
    computes the same sums.

    Args:
        batch_tokens: positions of a forward pass, or one row. max_length: most ids that are read of a continuation with
            its context; longer contexts lose their beginning. chunk: targets that the head takes at once.

    Returns:
        Batches of at most 4 shapes without and 4 with a prefix, and how many contexts were cut.
    """
    families, cut = _families(asked, max_length)
    groups: dict[Hashable, list[Family]] = {}
    for family in families:
        groups.setdefault(asked[family.numbers[0]].group, []).append(family)
    prefixes = [(_shared(found), found) for found in groups.values()]
    plain = [family for prefix, found in prefixes if not prefix for family in found]
    behind = [(prefix, found) for prefix, found in prefixes if prefix]
    batches = _batches([([], plain)] if plain else [], 0, batch_tokens, chunk)
    if behind:
        rungs = length_rungs(max(len(prefix) for prefix, _ in behind))
        for width in rungs:
            chosen = [one for one in behind if rung_for(len(one[0]), rungs) == width]
            batches += _batches(chosen, width, batch_tokens, chunk)
    return batches, cut


def best_widths(lengths: Sequence[int], most: int = MOST_WIDTHS) -> list[int]:
    """At most so many widths for rows of these lengths, rising, that pad them least.

    Args:
        lengths: of the rows, at least one.
    """
    sizes, counts = np.unique([bucket(length) for length in lengths], return_counts=True)
    # least[k][i]: positions that the first i sizes take in k widths, the largest of which is the i-th size.
    total = np.concatenate([[0], np.cumsum(counts)])
    least = np.full((most + 1, len(sizes) + 1), np.inf)
    least[:, 0] = 0
    chosen = np.zeros((most + 1, len(sizes) + 1), int)
    for k, i in itertools.product(range(1, most + 1), range(1, len(sizes) + 1)):
        costs = least[k - 1, :i] + (total[i] - total[:i]) * sizes[i - 1]
        chosen[k, i] = int(np.argmin(costs))
        least[k, i] = costs[chosen[k, i]]
    widths, k, i = [], most, len(sizes)
    while i:
        widths.append(int(sizes[i - 1]))
        k, i = k - 1, chosen[k, i]
    return widths[::-1]


def _batches(
    groups: Sequence[tuple[Sequence[int], Sequence[Family]]], prefix_width: int, batch_tokens: int, chunk: int
) -> list[Batch]:
    """Groups with prefixes of one width. From the longest row on, each batch takes as many as fit beside it."""
    if not groups:
        return []
    lengths = [len(family.branches) - len(prefix) for prefix, found in groups for family in found]
    widths, most = best_widths(lengths), max(len(found) for _, found in groups)
    cut: list[tuple[Sequence[int], list[Family], int, int]] = []
    for prefix, found in groups:
        left = sorted(found, key=lambda family: -len(family.branches))
        while left:
            width = rung_for(len(left[0].branches) - len(prefix), widths)
            rows = max(1, min(batch_tokens // width, CACHE_SHARE * batch_tokens // (prefix_width + width), most))
            cut.append((prefix, left[:rows], rows, width))
            left = left[rows:]
    places: dict[int, int] = {}
    for _, taken, _, width in cut:
        targets = sum(len(ids) for family in taken for ids in family.targets)
        places[width] = max(places.get(width, 0), -(-targets // chunk) * chunk)
    return [
        Batch(taken, prefix, prefix_width if prefix else 0, rows, width, places[width])
        for prefix, taken, rows, width in cut
    ]


def _families(asked: Sequence[Continuation], max_length: int) -> tuple[list[Family], int]:
    """By item, as far as they begin alike and fit one row; and how many contexts were cut."""
    items: dict[Hashable, list[int]] = {}
    sequences, firsts = [], []
    for number, one in enumerate(asked):
        whole = [*one.context, *one.ids]
        over = max(0, len(whole) - 1 - max_length)
        sequences.append(whole[over:-1])
        firsts.append(max(0, len(one.context) - 1 - over))
        first_id = sequences[-1][0]
        items.setdefault((one.group, number if one.item is None else ("item", one.item), first_id), []).append(number)
    cut = sum(len(one.context) + len(one.ids) - 1 > max_length for one in asked)
    families = []
    for numbers in items.values():
        joined = _joined([sequences[number] for number in numbers])
        rows = [numbers] if len(joined) <= max_length else [[number] for number in numbers]
        for row in rows:
            branches = joined if len(row) == len(numbers) else _joined([sequences[number] for number in row])
            # Of a continuation longer than all that may be read, the last ids are asked for.
            targets = [asked[n].ids[-(len(sequences[n]) - firsts[n]) :] for n in row]
            families.append(Family(row, branches, [firsts[number] for number in row], targets))
    return families, cut


def _joined(sequences: Sequence[Sequence[int]]) -> Branches:
    """Sequences by how far all of them begin alike; an end may be empty."""
    length = common_length(sequences)
    return Branches(sequences[0][:length], [ids[length:] for ids in sequences])


def _shared(families: Sequence[Family]) -> list[int]:
    """The ids that all families of a group begin with, where reading them once is worth a cache."""
    beginnings = [list(family.branches.beginning) for family in families]
    # Targets within it are predicted in the rows alone.
    first = min(first for family in families for first in family.firsts)
    return beginnings[0][: prefix_length(beginnings, sum(len(one.branches) for one in families), first)]


def _without(branches: Branches, before: int) -> Branches:
    return dataclasses.replace(branches, beginning=branches.beginning[before:])


def targets_of(batch: Batch) -> Iterator[tuple[int, slice]]:
    """Of each continuation of a batch its number, and where its targets lie among the batch's."""
    start = 0
    for family in batch.families:
        for number, targets in zip(family.numbers, family.targets, strict=True):
            yield number, slice(start, start + len(targets))
            start += len(targets)
