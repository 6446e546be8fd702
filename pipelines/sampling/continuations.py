"""How likely a model finds some tokens after others, and whether each is the likeliest: what a benchmark with choices,
or a perplexity, asks for."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from gemma_keras import backends
from gemma_keras.backends.reference import softmax_log_probs
from gemma_keras.generation import behind
from gemma_keras.head import full_logits
from gemma_keras.layers.chosen_states import chosen_states
from gemma_keras.limits import DENSE_LOGITS
from pipelines.host.parts import Keep, compute_now
from pipelines.sampling.continuation_batches import Batch, Continuation, plan_batches, targets_of
from pipelines.sampling.prefixes import PrefixReader

LEAST_CHUNK, MOST_CHUNK = 64, 1024
BATCHES_A_PART = 8


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """Of n continuations.

    Args:
        log_probs: float64 (n,), the sum over each one's ids, in nats. is_greedy: bool (n,), True where each of them is
            the likeliest token. cut: how many contexts lost their beginning.
    """

    log_probs: np.ndarray
    is_greedy: np.ndarray
    cut: int


class ContinuationScorer:
    """Log-probabilities of continuations under a model's present weights, without gradients.

    What several continuations begin with is read once: the context of an item in the row of its choices, the beginning
    of a whole group into a cache. Only the places that predict reach the head.

    Args:
        model: GemmaCausalLM.
        batch_tokens: positions of a forward pass.
        max_length: most ids of a continuation with its context.
    """

    def __init__(self, model: Any, batch_tokens: int = 8192, max_length: int = 8192) -> None:
        self._model, self._batch_tokens, self._max_length = model, batch_tokens, max_length
        self._chunk = min(max(LEAST_CHUNK, 2 * DENSE_LOGITS // model.config.vocabulary_size), MOST_CHUNK)
        compiled = functools.partial(backends.compile_forward, models=[model])
        self._read = compiled(self._states, name="continuation_states")
        self._read_prefix = PrefixReader(model)
        self._judge = compiled(self._judged, name="continuation_log_probs")

    def __call__(
        self,
        asked: Sequence[Continuation],
        keep: Keep = compute_now,
        advance: Callable[[int, int], None] = lambda items, tokens: None,
    ) -> Likelihoods:
        """Of all continuations.

        Args:
            keep: keeps the arrays of each part, for when this is interrupted.
            advance: called after each part with the number of continuations done, and of tokens read.
        """
        batches, cut = plan_batches(asked, self._batch_tokens, self._max_length, self._chunk)
        log_probs, is_greedy = np.zeros(len(asked)), np.zeros(len(asked), bool)
        starts = range(0, len(batches), BATCHES_A_PART)
        for number, start in enumerate(starts):
            chosen = batches[start : start + BATCHES_A_PART]
            part = keep(str(number), functools.partial(self._of_batches, chosen), len(starts))
            rows = part["rows"]
            log_probs[rows], is_greedy[rows] = part["log_probs"], part["is_greedy"]
            advance(len(rows), sum(batch.tokens for batch in chosen))
        return Likelihoods(log_probs, is_greedy, cut)

    def _of_batches(self, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
        rows, log_probs, is_greedy = [], [], []
        for batch in batches:
            of_targets, is_top = self._of_batch(batch)
            for number, places in targets_of(batch):
                rows.append(number)
                log_probs.append(of_targets[places].sum(dtype=np.float64))
                is_greedy.append(bool(is_top[places].all()))
        return {"rows": np.array(rows), "log_probs": np.array(log_probs), "is_greedy": np.array(is_greedy)}

    def _of_batch(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Of each target of a batch, and of what fills it up: float32 (n,) and bool (n,)."""
        arrays = batch.arrays(self._model.config.pad_token_id)
        ids = arrays.pop("target_ids")
        cache = [self._read_prefix(batch.prefix, batch.prefix_width)] if batch.prefix else []
        states = self._read(arrays, *cache)
        needed = sum(len(targets) for family in batch.families for targets in family.targets)
        starts = range(0, needed, self._chunk)
        judged = [self._judge(states, np.int32(start), ids[start : start + self._chunk]) for start in starts]
        log_probs, is_top = zip(*(map(backends.to_host, one) for one in judged), strict=True)
        return np.concatenate(log_probs), np.concatenate(is_top)

    # --- what is compiled

    def _states(self, inputs: Any, cache: Any = None) -> Any:
        """The states that predict the targets: float (n, d)."""
        inputs = dict(inputs)
        places = inputs.pop("target_positions"), inputs.pop("target_rows")
        backbone = self._model.backbone
        if cache is None:
            return chosen_states(backbone(inputs), *places)
        slots = cache[0][0].shape[1]
        empty = backbone.empty_cache(*inputs["token_ids"].shape)
        own = [tuple(map(behind, shared, rows)) for shared, rows in zip(cache, empty, strict=True)]
        hidden, _ = backbone(inputs, cache=own, cache_index=slots)
        return chosen_states(hidden, *places)

    def _judged(self, states: Any, start: Any, ids: Any) -> Any:
        """Of `ids`, int (c,), at the states from `start` on: log-probabilities float32 (c,), and bool (c,)."""
        config = self._model.config
        some = ops.slice(states, (start, 0), (ids.shape[0], states.shape[1]))
        matrix = self._model.backbone.token_embedding.as_output_matrix()
        logits = full_logits(some, matrix, config.final_logit_soft_cap)
        log_probs, _ = softmax_log_probs(logits, ids, with_entropy=False)
        return log_probs, ops.cast(ops.argmax(logits, axis=-1), "int32") == ids
