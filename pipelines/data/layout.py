"""Several sequences side by side in one row, so that little of a forward pass is padding: which lie where, and in how
few shapes.

Segments and positions restart in each sequence, so that each gets the numbers it gets alone. The width is bounded, as
attention costs its square; where that costs more than padding does, nothing is packed (`None`).

An item is what a micro-batch may not part: a sequence, or the two of a pair. Shape letters: b rows, t positions.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from gemma_keras.config import GemmaConfig
from pipelines.data.batches import bucket
from pipelines.data.branches import Branches, lay_out_branches
from pipelines.data.packing import best_fit
from pipelines.data.shapes import ONE_SHAPE, rung_for

MOST_SHAPES = 4
LEAST_GAIN = 0.05  # a smaller one is not worth another compilation
COSTLY_WIDTH = 400  # of the quickstart's model, see `costly_width`; wider models reach it later
# Rows of a stage whose lengths are not known before: of what padding takes, each three quarters of the one before.
SHARES = (27 / 64, 9 / 16, 3 / 4)


@dataclasses.dataclass(frozen=True)
class Part:
    """The sequences of one micro-batch.

    Args:
        items: int (k,), which items. rows: of each row the sequences in it, counted item by item: `i * s + side`.
    """

    items: np.ndarray
    rows: list[list[int]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the sequences of a stage, or of one step, lie.

    Args:
        width: t. parts: the micro-batches of each update.
        row_counts: the sizes of b, rising; a part takes the smallest that it fits.
        families: each item's sequences with their beginning once, which stand together and count as one in `rows`; None
            where the sequences stand apart.
    """

    width: int
    parts: list[list[Part]]
    row_counts: list[int]
    families: Sequence[Branches] | None = None

    def rows_of(self, part: Part) -> int:
        """b of a part."""
        return rung_for(len(part.rows), self.row_counts)

    def most_items(self) -> int:
        """Items of the part that has the most."""
        return max(len(part.items) for part in itertools.chain(*self.parts))


def known_layout(
    lengths: np.ndarray,
    updates: Sequence[Sequence[np.ndarray]],
    micro_batch_size: int,
    rungs: Sequence[int],
    config: GemmaConfig,
    families: Sequence[Branches] | None = None,
) -> Layout | None:
    """A layout for updates that are known beforehand.

    Args:
        lengths: int (n, s), tokens of the s sequences of each item.
        updates: of each the micro-batches that it has without packing, as `batch_rows` gives them; the items of an
            update stay its own.
        micro_batch_size: items of a forward pass without packing: with it a pass holds no more positions, or one row.
        rungs: the padded lengths without packing.
        config: of the model, whose attention is weighed against its products.
        families: of each item its sequences, as `joined_items` gives them; None where they stay apart.

    Returns:
        The cheaper layout, apart or joined, of at most 4 shapes; or None where it gains less than 5 %.
    """
    sides, costly = lengths.shape[1], costly_width(config)
    most = micro_batch_size * sides * rungs[-1]
    width = max(rungs[-1], ONE_SHAPE)
    layouts = [_fitting_layout(lengths, updates, width, max(sides, most // width))]
    if families is not None:
        joined = np.array(list(map(len, families)))
        width = max(bucket(int(joined.max())), ONE_SHAPE)
        layout = _fitting_layout(joined[:, None], updates, width, max(1, most // width))
        layouts.append(dataclasses.replace(layout, families=families))
    plain = sum(
        _cost(micro_batch_size * sides, rung_for(lengths[rows].max(), rungs), costly)
        for rows in itertools.chain(*updates)
    )
    costs = [
        sum(_cost(one.rows_of(part), one.width, costly) for part in itertools.chain(*one.parts)) for one in layouts
    ]
    least = min(costs)
    return layouts[costs.index(least)] if least < (1 - LEAST_GAIN) * plain else None


def step_layout(lengths: np.ndarray, full: int, micro_batch_size: int) -> Layout | None:
    """A layout of one step, whose shapes are those of other steps.

    Args:
        lengths: int (n,), tokens of each sequence.
        full: positions a sequence takes without packing.
        micro_batch_size: sequences of a forward pass without packing: as of `known_layout`.

    Returns:
        A layout of one update in one of three shapes, a function of n, `full` and `micro_batch_size`; or None where the
        largest does not fit, or gains less than 5 %.
    """
    count, width = len(lengths), max(full, ONE_SHAPE)
    for parts, rows in step_shapes(count, full, micro_batch_size):
        dealt = _dealt(lengths[:, None], np.arange(count), parts, width)
        if max(len(part.rows) for part in dealt) <= rows:
            return Layout(width, [dealt], [rows])
    return None


def may_pack(count: int, full: int, micro_batch_size: int) -> bool:
    """Whether `step_layout` can give anything but None for so many sequences."""
    return next(step_shapes(count, full, micro_batch_size), None) is not None


def costly_width(config: GemmaConfig) -> float:
    """The keys that cost a token as much as all its products do. By operations it were twice as many; measured on the
    quickstart's model it is these, as the softmax takes its time too."""
    inner = config.parameter_count - config.vocabulary_size * config.hidden_dim
    return inner / (4 * config.num_layers * config.num_query_heads * config.head_dim)


def lay_out(
    sequences: Sequence[Sequence[int]], part: Part, width: int, rows: int, pad_token_id: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The sequences of a part as a model takes them.

    Args:
        sequences: ids, item by item. width: t. rows: b.

    Returns:
        arrays: token_ids, positions, segment_ids int32 (b, t) and padding_mask bool (b, t), True for a real token; rows
        that hold no sequence are padding, which sees itself. row, start: int32 (n,), where each sequence begins.
    """
    arrays, places = lay_out_branches(list(map(_alone, sequences)), part.rows, (rows, width), pad_token_id)
    row_of, start_of = (np.array([getattr(place, name) for place in places], np.int32) for name in ("row", "start"))
    return arrays, row_of, start_of


def lay_out_items(
    items: Sequence[Sequence[Sequence[int]]], part: Part, layout: Layout, pad_token_id: int = 0
) -> tuple[dict[str, np.ndarray], list[tuple[int, np.ndarray]]]:
    """A part of a known layout as a model takes it, the sequences of an item joined or apart.

    Args:
        items: ids of each sequence of each item that the layout was made of.

    Returns:
        arrays: as of `lay_out`. places: of each sequence, item by item, its row and the columns of its ids, int
        (length,).
    """
    if layout.families is None:
        families = [_alone(ids) for i in part.items for ids in items[i]]
    else:
        families = [layout.families[i] for i in part.items]
    arrays, found = lay_out_branches(families, part.rows, (layout.rows_of(part), layout.width), pad_token_id)
    places = [
        (place.row, place.positions(number, np.arange(len(family.beginning) + len(end))))
        for family, place in zip(families, found, strict=True)
        for number, end in enumerate(family.ends)
    ]
    return arrays, places


def _alone(sequence: Sequence[int]) -> Branches:
    return Branches(sequence, [[]])


def _dealt(lengths: np.ndarray, items: np.ndarray, count: int, width: int) -> list[Part]:
    """Items dealt to `count` parts, the longest first, so that all hold about as many tokens."""
    ordered = items[np.argsort(-lengths[items].sum(axis=1), kind="stable")]
    hands = [ordered[first::count] for first in range(count)]
    return [Part(hand, best_fit(lengths[hand].ravel().tolist(), width)) for hand in hands]


def _fitting_layout(lengths: np.ndarray, updates: Sequence[Sequence[np.ndarray]], width: int, most_rows: int) -> Layout:
    parts = [_fitting_parts(lengths, np.concatenate(update), width, most_rows) for update in updates]
    return Layout(width, parts, _row_counts([len(part.rows) for part in itertools.chain(*parts)]))


def _fitting_parts(lengths: np.ndarray, items: np.ndarray, width: int, most_rows: int) -> list[Part]:
    """As few parts as it takes for none to have more than `most_rows` rows."""
    count = math.ceil(lengths[items].sum() / (width * most_rows))
    while True:  # ends with one item a part, at the latest
        parts = _dealt(lengths, items, count, width)
        if max(len(part.rows) for part in parts) <= most_rows:
            return parts
        count += 1


def step_shapes(
    count: int, full: int, micro_batch_size: int, shares: Sequence[float] = SHARES
) -> Iterator[tuple[int, int]]:
    """How many parts, and rows a part, a step may have that gains by them; rising.

    Args:
        count, full, micro_batch_size: as of `step_layout`. shares: of what padding takes, rising.
    """
    width = max(full, ONE_SHAPE)
    plain = math.ceil(count / micro_batch_size) * _cost(micro_batch_size, full)
    for share in shares:
        parts = math.ceil(share * count / micro_batch_size)
        rows = math.ceil(share * count * full / (parts * width))
        if parts * _cost(rows, width) > (1 - LEAST_GAIN) * plain:
            return
        yield parts, rows


def _row_counts(needed: Sequence[int]) -> list[int]:
    """At most 4 numbers of rows for parts that need `needed`; each but the largest saves 5 % of all rows or more."""
    counts = [max(needed)]

    def computed(candidates: list[int]) -> int:
        sizes = np.sort(candidates)
        return int(sizes[np.searchsorted(sizes, needed)].sum())

    while len(counts) < MOST_SHAPES:
        best = min(sorted(set(needed)), key=lambda count: computed([*counts, count]))
        if computed([*counts, best]) > (1 - LEAST_GAIN) * computed(counts):
            break
        counts.append(best)
    return sorted(counts)


def _cost(rows: int, width: int, costly: float = COSTLY_WIDTH) -> float:
    """What a forward pass takes, in units of one position's attention to one key."""
    return rows * width * (costly + width)
