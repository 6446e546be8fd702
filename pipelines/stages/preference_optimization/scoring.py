"""Log-probabilities of whole answers."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from gemma_keras import backends
from pipelines.data.shapes import alike_lengths, length_rungs
from pipelines.host.parts import Keep, compute_now
from pipelines.stages.preference_optimization.answer_batches import Item, answer_batches, longest
from pipelines.training.loop import ROW_INDEX, Batch, model_inputs

_BATCHES_A_PART = 16


def answer_log_probs(model: Any, batch: Mapping[str, Any], temperature: float) -> Any:
    """Log-probability of each answer of a batch, differentiable: float32 (s * k,), 0 where a place is filled up.

    Args:
        model: GemmaCausalLM. batch: of tensors, as of `answer_batches`. temperature: float > 0.
    """
    log_probs = model.score(batch, temperature)
    answers = ops.arange(batch["answer_lengths"].shape[0], dtype="int32")
    # A sum in one order on every backend and device, which scattered additions are not.
    is_of = ops.logical_and(batch["target_answer"] == answers[:, None], batch["target_mask"])
    return ops.sum(ops.where(is_of, log_probs, 0.0), axis=1)


class AnswerScorer:
    """Log-probabilities of answers under a model's present weights, without gradients.

    Args:
        model: GemmaCausalLM. temperature: float > 0.
    """

    def __init__(self, model: Any, temperature: float) -> None:
        self._model = model
        self._forward = backends.compile_forward(
            lambda batch: answer_log_probs(model, batch, temperature), [model], "answer_log_probs"
        )

    def of_items(
        self, items: Sequence[Item], micro_batch_size: int, max_length: int, keep: Keep = compute_now
    ) -> np.ndarray:
        """Of all items: float32 (n, s).

        Args:
            micro_batch_size: items of a forward pass without packing. max_length: tokens of an answer with its prompt.
            keep: keeps the arrays of each part, for when this is interrupted.
        """
        lengths = np.array([longest([item]) for item in items])
        updates = [alike_lengths(np.arange(len(items)), lengths, micro_batch_size)]
        rungs = length_rungs(int(lengths.max()), max_length)
        batches = answer_batches(items, updates, micro_batch_size, rungs, self._model.config)
        found = np.zeros((len(items), len(items[0])), np.float32)
        (micro_batches,) = map(list, batches())
        starts = range(0, len(micro_batches), _BATCHES_A_PART)
        for number, start in enumerate(starts):
            chosen = micro_batches[start : start + _BATCHES_A_PART]
            part = keep(str(number), functools.partial(self._of_part, chosen), len(starts))
            found[part["rows"]] = part["log_probs"]
        return found

    def _of_part(self, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
        rows, log_probs = zip(*self.of_batches(batches), strict=True)
        return {"rows": np.concatenate(rows), "log_probs": np.concatenate(log_probs)}

    def of_batches(self, batches: Iterable[Batch]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Of some micro-batches of `answer_batches`: which rows of the data each holds, and theirs, float32 (rows,
        s)."""
        for batch in batches:
            of_places = backends.to_host(self._forward(model_inputs(batch)))
            rows = batch[ROW_INDEX]
            yield rows[rows >= 0], of_places.reshape(-1, len(rows)).T[rows >= 0]
