"""Which examples each update sees: a function of (seed, stage, epoch) alone, so that no draw has a state."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from gemma_keras.random import generator
from pipelines.data.shapes import alike_lengths
from pipelines.schema.base import TrainingOptions

Updates = Sequence[Sequence[np.ndarray]]
"""Of each update its micro-batches, which are rows of the data."""


def epoch_order(seed: int, stage: str, epoch: int, size: int) -> np.ndarray:
    """The order in which one epoch goes through `size` examples: int (size,), keyed by (seed, stage, epoch)."""
    return generator(seed, stage, "order", epoch).permutation(size)


def count_updates(examples: int, options: TrainingOptions) -> int:
    """Updates of a training run over `examples` sequences, as `options` (epochs, batch_size, max_steps) ask for; at
    least 1."""
    updates = max(1, math.ceil(options.epochs * examples / options.batch_size))
    return updates if options.max_steps is None else min(updates, options.max_steps)


def micro_batch_size(options: TrainingOptions) -> int:
    """Rows of a forward pass, as `options` (micro_batch_size, batch_size) ask for."""
    return options.rows_at_once() or options.batch_size


def count_rows(examples: int, options: TrainingOptions) -> int:
    """Rows of a training run over `examples` sequences, as `options` (epochs, batch_size, max_steps) ask for."""
    rows = max(1, math.ceil(options.epochs * examples))
    return min(rows, count_updates(examples, options) * options.batch_size)


def epochs_order(seed: int, stage: str, size: int, rows: int) -> np.ndarray:
    """The first `rows` of epoch after epoch through `size` examples, without a gap: int (rows,)."""
    return np.concatenate([epoch_order(seed, stage, epoch, size) for epoch in range(math.ceil(rows / size))])[:rows]


def batch_rows(
    seed: int, stage: str, lengths: Sequence[int], options: TrainingOptions, order: np.ndarray | None = None
) -> Iterator[list[np.ndarray]]:
    """Which examples each update sees.

    Args:
        seed, stage: key of the order.
        lengths: tokens of each example.
        options: `epochs`, `batch_size`, `micro_batch_size`, `max_steps` of a training stage.
        order: int (n,), examples as they are learned from; default epoch after epoch without a gap.

    Yields:
        One list an update; each entry int (<= micro_batch_size,), the rows of one micro-batch, of alike length. Only
        the very last update can hold fewer than `batch_size` rows.
    """
    sizes = np.asarray(lengths)
    if order is None:
        order = epochs_order(seed, stage, len(sizes), count_rows(len(sizes), options))
    for start in range(0, len(order), options.batch_size):
        yield alike_lengths(order[start : start + options.batch_size], sizes, micro_batch_size(options))
