"""The micro-batches of a reward model: several answers a row where that saves work, the beginning that those of a pair
share once, else one a row."""

from collections.abc import Sequence

import numpy as np

from gemma_keras.config import GemmaConfig
from pipelines.data.branches import joined_items
from pipelines.data.encoding import EncodedPair
from pipelines.data.layout import Layout, Part, known_layout, lay_out_items
from pipelines.data.shapes import rung_for
from pipelines.scoring.reward_models import reward_inputs
from pipelines.training.batch_order import Updates
from pipelines.training.loop import ROW_INDEX, Batch, BatchesFrom


def pair_batches(
    pairs: Sequence[EncodedPair],
    updates: Updates,
    micro_batch_size: int,
    rungs: Sequence[int],
    config: GemmaConfig,
    may_pack: bool = True,
) -> BatchesFrom:
    """The arrays of each update, in at most 4 shapes.

    Args:
        updates: int indices into `pairs`; an update keeps its pairs, its micro-batches may be cut anew.
        micro_batch_size: pairs of a forward pass without packing.
        rungs: padded lengths, see `data/shapes.py`.
        config: of the model.
        may_pack: False keeps one answer a row.

    Returns:
        Batches of k pairs: what a reward model takes, with scores of all chosen answers first and all rejected ones
        then; `margin` float32 (k,); `is_pair` bool (k,), False where a place is only filled up.
    """
    sides = [(pair.chosen_ids, pair.rejected_ids) for pair in pairs]
    lengths = np.array([list(map(len, both)) for both in sides])
    layout = known_layout(lengths, updates, micro_batch_size, rungs, config, joined_items(sides)) if may_pack else None

    def plain_batch(rows: np.ndarray) -> Batch:
        length = rung_for(int(lengths[rows].max()), rungs)
        chosen, rejected = (
            reward_inputs([sides[i][side] for i in rows], micro_batch_size, length, config.pad_token_id)
            for side in range(2)
        )
        both = {name: np.concatenate([chosen[name], rejected[name]]) for name in chosen}
        return {**both, **_of_pairs(pairs, rows, micro_batch_size)}

    def packed_batch(part: Part, layout: Layout) -> Batch:
        arrays, places = lay_out_items(sides, part, layout, config.pad_token_id)
        most = layout.most_items()
        last = np.zeros((2, 2, most), np.int32)  # row and column, of the chosen and then of the rejected
        for number, (row, columns) in enumerate(places):
            last[:, number % 2, number // 2] = row, columns[-1]
        reward_rows, reward_positions = last.reshape(2, -1)
        at = {"reward_rows": reward_rows, "reward_positions": reward_positions}
        return {**arrays, **at, **_of_pairs(pairs, part.items, most)}

    if layout is None:
        return lambda start=0: (map(plain_batch, update) for update in updates[start:])
    return lambda start=0: ((packed_batch(part, layout) for part in update) for update in layout.parts[start:])


def longest_side(pairs: Sequence[EncodedPair]) -> int:
    """Tokens of the longest prompt with its response."""
    return max(max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs)


def _of_pairs(pairs: Sequence[EncodedPair], rows: np.ndarray, count: int) -> Batch:
    margin, row_index = np.zeros(count, np.float32), np.full(count, -1)
    margin[: len(rows)] = [pairs[i].margin for i in rows]
    row_index[: len(rows)] = rows
    return {"margin": margin, "is_pair": row_index >= 0, ROW_INDEX: row_index}
