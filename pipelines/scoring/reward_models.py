"""Raw scores of token sequences under a reward model: exactly the ids that are given, nothing is decoded or encoded
again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma_keras import backends
from gemma_keras.inputs.padding import padded
from pipelines.data.batches import bucket
from pipelines.data.layout import MOST_SHAPES, Part, lay_out, may_pack, step_layout
from pipelines.data.shapes import alike_lengths, rung_for
from pipelines.sampling.widths import quarters

PACKED_INPUTS = ("token_ids", "padding_mask", "positions", "segment_ids", "reward_rows", "reward_positions")
"""What a reward model takes of a packed batch."""


class SequenceScorer:
    """Scores sequences in batches of at most four shapes, however different the calls are in number and lengths.

    Args:
        model: GemmaRewardModel; its present weights are used at each call.
        batch_size: rows a forward pass.
    """

    def __init__(self, model: Any, batch_size: int = 64) -> None:
        self._model = model
        self._batch_size = batch_size
        self._shapes: set[tuple[int, ...]] = set()
        self._forward = backends.compile_forward(lambda batch: model(batch), [model], "reward_scores")

    def raw_scores(self, sequences: Sequence[Sequence[int]], length: int | None = None) -> np.ndarray:
        """The score at the last token of each sequence.

        Args:
            sequences: ids of prompt and response together, at least one each.
            length: of the longest that may come in any call; what there is besides four shapes for it is padded to
                one of them. Default the bucket of the longest of these.

        Returns:
            float32 (n,), not normalised; `model.normalized` does that.
        """
        if not sequences:
            return np.zeros(0, np.float32)
        lengths = np.array([len(sequence) for sequence in sequences])
        top = length or bucket(int(lengths.max()))
        rungs = quarters(top) if length else [top]
        layout = step_layout(lengths, top, self._batch_size)
        pad_token_id = self._model.config.pad_token_id
        scores = np.zeros(len(sequences), np.float32)
        if layout is not None and self._may_use(layout.width, layout.row_counts[-1], layout.most_items()):
            for part in layout.parts[0]:
                chosen = [sequences[i] for i in part.items]
                batch = packed_reward_inputs(
                    chosen, part, layout.width, layout.rows_of(part), layout.most_items(), pad_token_id
                )
                scores[part.items] = backends.to_host(self._forward(batch))[: len(chosen)]
            return scores
        if may_pack(len(sequences), top, self._batch_size):
            rungs = rungs[-1:]  # other steps are packed: one shape more
        for rows in alike_lengths(np.arange(len(sequences)), lengths, self._batch_size):
            width = rung_for(int(lengths[rows[-1]]), rungs)
            width = width if self._may_use(width) else rungs[-1]
            batch = reward_inputs([sequences[row] for row in rows], self._batch_size, width, pad_token_id)
            scores[rows] = backends.to_host(self._forward(batch))[: len(rows)]
        return scores

    def _may_use(self, *shape: int) -> bool:
        """Whether a shape has come before, or may still come: the last of four is kept for a row a sequence at the full
        length, which takes whatever fits no other."""
        if shape not in self._shapes and len(self._shapes) == MOST_SHAPES - 1:
            return False
        self._shapes.add(shape)
        return True


def reward_inputs(
    sequences: Sequence[Sequence[int]], rows: int, length: int, pad_token_id: int
) -> dict[str, np.ndarray]:
    """Sequences padded on the right, as a reward model takes them.

    Args:
        sequences: at most `rows`, of 1 to `length` ids. Rows beyond them hold one padding token as real: attention over
            no key is 0/0.

    Returns:
        token_ids int32 (b, t). padding_mask bool (b, t), True for a real token. reward_positions int32 (b,), the last
        real token.
    """
    token_ids, is_token = padded(sequences, pad_token_id, length, rows=rows)
    return {
        "token_ids": token_ids,
        "padding_mask": is_token,
        "reward_positions": is_token.sum(axis=1, dtype=np.int32) - 1,
    }


def packed_reward_inputs(
    sequences: Sequence[Sequence[int]], part: Part, width: int, rows: int, count: int, pad_token_id: int
) -> dict[str, np.ndarray]:
    """Sequences side by side, as a reward model takes them.

    Args:
        sequences: ids, at most `count`, in the order of the part's items. width: t. rows: b.

    Returns:
        What `lay_out` gives, and `reward_rows` and `reward_positions` int32 (count,): where the last token of each
        sequence lies; beyond them 0, whose score means nothing.
    """
    arrays, row_of, start_of = lay_out(sequences, part, width, rows, pad_token_id)
    reward_rows, reward_positions = np.zeros((2, count), np.int32)
    reward_rows[: len(sequences)] = row_of
    reward_positions[: len(sequences)] = start_of + [len(sequence) - 1 for sequence in sequences]
    return {**arrays, "reward_rows": reward_rows, "reward_positions": reward_positions}
