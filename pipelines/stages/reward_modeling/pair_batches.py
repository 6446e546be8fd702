"""The micro-batches of a reward model: several answers a row where that saves work, the beginning that those of a pair
share once, else one a row."""

from collections.abc import Sequence

import numpy as np

from gemma_keras.config import GemmaConfig
from pipelines.data.branches import Branches, joined_items, lay_out_branches
from pipelines.data.encoding import EncodedPair
from pipelines.data.layout import Layout, Part, known_layout
from pipelines.data.shapes import rung_for
from pipelines.scoring.reward_models import packed_reward_inputs, reward_inputs
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
    lengths = np.array([[len(pair.chosen_ids), len(pair.rejected_ids)] for pair in pairs])
    families = joined_items([(pair.chosen_ids, pair.rejected_ids) for pair in pairs]) if may_pack else None
    joined = None if families is None else np.array(list(map(len, families)))
    layout = known_layout(lengths, updates, micro_batch_size, rungs, config, joined) if may_pack else None

    def plain_batch(rows: np.ndarray) -> Batch:
        length = rung_for(int(lengths[rows].max()), rungs)
        sides = ([pairs[i].chosen_ids for i in rows], [pairs[i].rejected_ids for i in rows])
        chosen, rejected = (reward_inputs(side, micro_batch_size, length, config.pad_token_id) for side in sides)
        both = {name: np.concatenate([chosen[name], rejected[name]]) for name in chosen}
        return {**both, **_of_pairs(pairs, rows, micro_batch_size)}

    if layout is None:
        return lambda start=0: (map(plain_batch, update) for update in updates[start:])
    own = families if layout.is_joined else None
    return lambda start=0: (
        (_packed_batch(pairs, part, layout, own, config.pad_token_id) for part in update)
        for update in layout.parts[start:]
    )


def longest_side(pairs: Sequence[EncodedPair]) -> int:
    """Tokens of the longest prompt with its response."""
    return max(max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs)


def _packed_batch(
    pairs: Sequence[EncodedPair], part: Part, layout: Layout, families: Sequence[Branches] | None, pad_token_id: int
) -> Batch:
    most_pairs, rows = layout.most_items(), layout.rows_of(part)
    sequences = [ids for i in part.items for ids in (pairs[i].chosen_ids, pairs[i].rejected_ids)]
    if families is None:
        arrays = packed_reward_inputs(sequences, part, layout.width, rows, 2 * most_pairs, pad_token_id)
    else:
        own = [families[i] for i in part.items]
        arrays, places = lay_out_branches(own, part.rows, (rows, layout.width), pad_token_id)
        at = np.zeros((2, 2 * most_pairs), np.int32)
        for number, ids in enumerate(sequences):
            place, side = places[number // 2], number % 2
            at[:, number] = place.row, place.positions(side, np.array(len(ids) - 1))
        arrays |= dict(zip(("reward_rows", "reward_positions"), at, strict=True))
    for name in ("reward_rows", "reward_positions"):
        arrays[name] = arrays[name].reshape(most_pairs, 2).T.ravel()
    return {**arrays, **_of_pairs(pairs, part.items, most_pairs)}


def _of_pairs(pairs: Sequence[EncodedPair], rows: np.ndarray, count: int) -> Batch:
    margin, row_index = np.zeros(count, np.float32), np.full(count, -1)
    margin[: len(rows)] = [pairs[i].margin for i in rows]
    row_index[: len(rows)] = rows
    return {"margin": margin, "is_pair": row_index >= 0, ROW_INDEX: row_index}
