"""The micro-batches of a language model: several examples a row where that saves work, else one a row."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gemma_keras.config import GemmaConfig
from pipelines.data.batches import bucket, make_batch
from pipelines.data.layout import Layout, Part, known_layout, lay_out
from pipelines.data.packing import Encoded, PackedRow
from pipelines.data.shapes import rung_for
from pipelines.training.batch_order import Updates
from pipelines.training.loop import ROW_INDEX, Batch, BatchesFrom


def language_batches(
    examples: Sequence[Encoded],
    updates: Updates,
    micro_batch_size: int,
    rungs: Sequence[int],
    config: GemmaConfig,
    may_pack: bool = True,
) -> BatchesFrom:
    """The arrays of each update, in at most 4 shapes.

    Args:
        examples: encoded or packed; what is packed already is left as it is.
        updates: int indices into `examples`; an update keeps its examples, its micro-batches may be cut anew.
        micro_batch_size: examples of a forward pass without packing.
        rungs: padded lengths, see `data/shapes.py`.
        config: of the model.
        may_pack: False keeps one example a row.
    """
    lengths = np.array([len(example.token_ids) for example in examples])
    if may_pack and not any(isinstance(example, PackedRow) for example in examples):
        layout = known_layout(lengths[:, None], updates, micro_batch_size, rungs, config)
        if layout is not None:
            return lambda start=0: _packed_batches(examples, layout, config.pad_token_id, start)
    return lambda start=0: _plain_batches(examples, updates, micro_batch_size, rungs, config.pad_token_id, start)


def _plain_batches(
    examples: Sequence[Encoded], updates: Updates, size: int, rungs: Sequence[int], pad_token_id: int, start: int
) -> Iterator[Iterator[Batch]]:
    # One number of targets for each padded length, so that a length is one shape.
    target_lengths = {
        rung: bucket(max((_targets(e) for e in examples if len(e.token_ids) <= rung), default=1) or 1, rung)
        for rung in rungs
    }

    def batch_of(rows: np.ndarray) -> Batch:
        chosen = [examples[i] for i in rows]
        length = rung_for(max(len(example.token_ids) for example in chosen), rungs)
        row_index = np.full(size, -1)
        row_index[: len(rows)] = rows
        return {**make_batch(chosen, pad_token_id, length, target_lengths[length], size), ROW_INDEX: row_index}

    for update in updates[start:]:
        yield map(batch_of, update)


def _packed_batches(
    examples: Sequence[Encoded], layout: Layout, pad_token_id: int, start: int
) -> Iterator[Iterator[Batch]]:
    # The targets of a micro-batch stand in one row: their sum varies less than the number in each sequence.
    target_counts = dict.fromkeys(layout.row_counts, 1)
    for part in itertools.chain(*layout.parts):
        rows = layout.rows_of(part)
        target_counts[rows] = max(target_counts[rows], sum(_targets(examples[i]) for i in part.items))
    for update in layout.parts[start:]:
        yield (_packed_batch(examples, part, layout, target_counts, pad_token_id) for part in update)


def _packed_batch(
    examples: Sequence[Encoded], part: Part, layout: Layout, target_counts: dict[int, int], pad_token_id: int
) -> Batch:
    chosen, rows = [examples[i] for i in part.items], layout.rows_of(part)
    arrays, row_of, start_of = lay_out([e.token_ids for e in chosen], part, layout.width, rows, pad_token_id)
    target_ids, target_rows, target_positions = np.zeros((3, 1, target_counts[rows]), np.int32)
    end = 0
    for example, row, start in zip(chosen, row_of, start_of, strict=True):
        predicting = np.flatnonzero(example.is_target[1:])
        here = slice(end, end + len(predicting))
        target_ids[0, here] = np.asarray(example.token_ids, np.int32)[predicting + 1]
        target_rows[0, here], target_positions[0, here] = row, start + predicting
        end += len(predicting)
    return {
        **arrays,
        "target_ids": target_ids,
        "target_rows": target_rows,
        "target_positions": target_positions,
        "target_mask": np.arange(target_counts[rows])[None] < end,
        ROW_INDEX: part.items,
    }


def _targets(example: Encoded) -> int:
    """Tokens of an example that are predicted and bear loss."""
    return sum(example.is_target[1:])
