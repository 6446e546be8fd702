"""The micro-batches of answers whose log-probabilities are asked for: several a row where that saves work, the
beginning that those of an item share once, else one.

Shape letters: k items of s answers each, such as the two of a pair; b rows, t positions, m targets.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gemma_keras.config import GemmaConfig
from gemma_keras.inputs.padding import padded
from pipelines.data.branches import joined_items
from pipelines.data.encoding import EncodedPair
from pipelines.data.layout import Layout, Part, known_layout, lay_out_items
from pipelines.data.shapes import rung_for
from pipelines.training.batch_order import Updates
from pipelines.training.loop import ROW_INDEX, Batch, BatchesFrom


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer behind its prompt.

    Args:
        token_ids: of both together. length: tokens of the answer, at their end; at least one, as is the prompt's.
    """

    token_ids: Sequence[int]
    length: int


Item = tuple[Answer, ...]
Ids = Sequence[Sequence[Sequence[int]]]
"""What is read of each answer of each item."""


def sides(pair: EncodedPair) -> Item:
    """The chosen and the rejected answer of a pair."""
    return Answer(pair.chosen_ids, pair.chosen_length), Answer(pair.rejected_ids, pair.rejected_length)


def longest(items: Sequence[Item]) -> int:
    """Tokens of the longest prompt with its answer."""
    return max(len(answer.token_ids) for answer in itertools.chain.from_iterable(items))


def answer_batches(
    items: Sequence[Item],
    updates: Updates,
    micro_batch_size: int,
    rungs: Sequence[int],
    config: GemmaConfig,
    may_pack: bool = True,
) -> BatchesFrom:
    """The arrays of each update, in at most 4 shapes.

    Args:
        items: of equally many answers.
        updates: int indices into `items`; an update keeps its items, its micro-batches may be cut anew.
        micro_batch_size: items of a forward pass without packing.
        rungs: padded lengths, see `data/shapes.py`.
        config: of the model.
        may_pack: False keeps one answer a row.

    Returns:
        Batches: what `GemmaCausalLM.score` takes, the targets of all answers in one row, `target_ids` and what goes
        with it (1, m); `target_mask` bool (1, m), `target_answer` int32 (1, m), to which answer a target belongs: the
        first answers of all items come first, then the second ones; `answer_lengths` float32 (s * k,); `is_item` bool
        (k,), False where a place is only filled up.
    """
    # Nothing is asked after an answer's last token.
    ids = [[answer.token_ids[:-1] for answer in item] for item in items]
    lengths = np.array([list(map(len, sequences)) for sequences in ids])
    layout = known_layout(lengths, updates, micro_batch_size, rungs, config, joined_items(ids)) if may_pack else None
    if layout is not None:
        return lambda start=0: _packed_batches(items, ids, layout, config.pad_token_id, start)
    return lambda start=0: _plain_batches(items, ids, updates, micro_batch_size, rungs, config.pad_token_id, start)


def _plain_batches(
    items: Sequence[Item], ids: Ids, updates: Updates, size: int, rungs: Sequence[int], pad_token_id: int, start: int
) -> Iterator[Iterator[Batch]]:
    def rung_of(rows: np.ndarray) -> int:
        return rung_for(max(len(sequence) for i in rows for sequence in ids[i]), rungs)

    # One number of targets for each padded length, so that a length is one shape.
    most_targets = dict.fromkeys(rungs, 1)
    for rows in itertools.chain.from_iterable(updates):
        rung = rung_of(rows)
        most_targets[rung] = max(most_targets[rung], _count_targets(items, rows))

    def batch_of(rows: np.ndarray) -> Batch:
        rung, count = rung_of(rows), len(items[0])
        # Places beyond the rows are filled up: a token that is real, as attention over no key is 0/0.
        filled = [[ids[i][side] for i in rows] + [[pad_token_id]] * (size - len(rows)) for side in range(count)]
        token_ids, padding_mask = padded(list(itertools.chain(*filled)), pad_token_id, rung)
        places = [
            (side * size + place, _asked(items[i][side])) for place, i in enumerate(rows) for side in range(count)
        ]
        arrays = {"token_ids": token_ids, "padding_mask": padding_mask}
        return {**arrays, **_targets(items, rows, size, places, most_targets[rung])}

    for update in updates[start:]:
        yield map(batch_of, update)


def _packed_batches(
    items: Sequence[Item], ids: Ids, layout: Layout, pad_token_id: int, start: int
) -> Iterator[Iterator[Batch]]:
    most_items = layout.most_items()
    most_targets = dict.fromkeys(layout.row_counts, 1)
    for part in itertools.chain(*layout.parts):
        rows = layout.rows_of(part)
        most_targets[rows] = max(most_targets[rows], _count_targets(items, part.items))

    def batch_of(part: Part) -> Batch:
        arrays, lies = lay_out_items(ids, part, layout, pad_token_id)
        asked = [_asked(answer) for i in part.items for answer in items[i]]
        places = [(row, columns[indices]) for (row, columns), indices in zip(lies, asked, strict=True)]
        return {**arrays, **_targets(items, part.items, most_items, places, most_targets[layout.rows_of(part)])}

    for update in layout.parts[start:]:
        yield map(batch_of, update)


def _count_targets(items: Sequence[Item], rows: np.ndarray) -> int:
    return sum(answer.length for i in rows for answer in items[i])


def _asked(answer: Answer) -> np.ndarray:
    """Which of the ids that are read predict the answer's: int (length,)."""
    total = len(answer.token_ids)
    return np.arange(total - answer.length - 1, total - 1)


def _targets(
    items: Sequence[Item], rows: np.ndarray, count: int, places: Sequence[tuple[int, np.ndarray]], targets: int
) -> Batch:
    """Where the tokens of the answers are predicted.

    Args:
        count: k. places: row and columns of each answer of these rows, item by item. targets: m.
    """
    target_ids, target_rows, target_positions, target_answer = np.zeros((4, 1, targets), np.int32)
    lengths, row_index = np.ones(len(items[0]) * count, np.float32), np.full(count, -1)
    row_index[: len(rows)] = rows
    end = 0
    answers = [(place, side, answer) for place, i in enumerate(rows) for side, answer in enumerate(items[i])]
    for (place, side, answer), (row, columns) in zip(answers, places, strict=True):
        here = slice(end, end + answer.length)
        target_ids[0, here] = answer.token_ids[len(answer.token_ids) - answer.length :]
        target_rows[0, here] = row
        target_positions[0, here] = columns
        target_answer[0, here] = side * count + place
        lengths[side * count + place] = answer.length
        end += answer.length
    return {
        "target_ids": target_ids,
        "target_rows": target_rows,
        "target_positions": target_positions,
        "target_answer": target_answer,
        "target_mask": np.arange(targets)[None] < end,
        "answer_lengths": lengths,
        "is_item": row_index >= 0,
        ROW_INDEX: row_index,
    }
