"""Prefill and decode with a key-value cache."""

import dataclasses
import weakref

import numpy as np
from keras import ops

from gemma_keras import backends
from gemma_keras.head import full_logits
from gemma_keras.layers.masks import positions_from_padding
from gemma_keras.sampling import Sampler, sample

_COMPILED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Generated:
    """What was sampled.

    Attributes:
        token_ids: int32 (b, r); the pad id after a row's stop token.
        response_mask: bool (b, r), True where the model sampled the token, its stop token included.
        finished: bool (b,), True where a stop token came.
        log_probs: float32 (b, r), of each sampled token under the whole distribution at the sampler's temperature,
            before top_k and top_p; of a greedy sampler at temperature 1. 0 where nothing was sampled.
    """

    token_ids: np.ndarray
    response_mask: np.ndarray
    finished: np.ndarray
    log_probs: np.ndarray

    def shortened(self, length: int) -> "Generated":
        """The first `length` steps; a row whose stop token came later counts as unfinished."""
        if length >= self.token_ids.shape[1]:
            return self
        lost = self.response_mask[:, length:].any(axis=1)
        return Generated(
            self.token_ids[:, :length],
            self.response_mask[:, :length],
            self.finished & ~lost,
            self.log_probs[:, :length],
        )

    def responses(self) -> list[list[int]]:
        """The sampled ids of each row, the stop token included."""
        return [row[real].tolist() for row, real in zip(self.token_ids, self.response_mask, strict=True)]


def generate_tokens(
    backbone, prompt_ids, prompt_is_token, max_new_tokens: int, uniforms, sampler: Sampler, stop_token_ids
) -> Generated:  # fmt: skip
    """Continue left-padded prompts.

    Each row stops at its first stop token; the whole batch stops when every row has. The uniforms are an input, so that
    a draw depends on what it is for and not on the batch it happens in.

    Args:
        backbone: `GemmaBackbone`, or a model that has one as `.backbone`.
        prompt_ids: int (b, p), padded on the left. prompt_is_token: bool (b, p), True for real tokens, at least one a
            row.
        max_new_tokens: r >= 1.
        uniforms: float32 (b, r) in [0, 1), one a step; only its shape matters for greedy sampling.
        sampler: `Sampler`.
        stop_token_ids: ids that end a row; may be empty.

    Raises:
        ValueError: a row without a token, padding on the right, or uniforms of another shape.
    """
    backbone = getattr(backbone, "backbone", backbone)
    prompt_ids = np.asarray(prompt_ids, np.int32)
    prompt_is_token = np.asarray(prompt_is_token, bool)
    uniforms = np.asarray(uniforms, np.float32)
    if prompt_ids.ndim != 2 or prompt_ids.shape != prompt_is_token.shape:
        raise ValueError(
            f"`prompt_ids` and `prompt_is_token` must be (b, p). Received: {prompt_ids.shape} and "
            f"{prompt_is_token.shape}"
        )
    if not prompt_is_token[:, -1].all():
        raise ValueError("Prompts must be padded on the left: the last column of `prompt_is_token` must be all True")
    if max_new_tokens < 1 or uniforms.shape != (len(prompt_ids), max_new_tokens):
        expected = (len(prompt_ids), max_new_tokens)
        raise ValueError(f"`uniforms` must have shape (b, max_new_tokens) = {expected}. Received: {uniforms.shape}")
    stops = tuple(int(i) for i in stop_token_ids)
    functions = _COMPILED.setdefault(backbone, {})
    # The draws are an input: samplers that differ in their seed share a program.
    sampler = dataclasses.replace(sampler, seed=None)
    key = (max_new_tokens, sampler, stops)
    if key not in functions:
        # A weak reference: the compiled function lives in a table keyed by the backbone and must not keep it alive.
        functions[key] = backends.compile_forward(
            _Generate(weakref.ref(backbone), max_new_tokens, sampler, stops), [backbone]
        )
    return Generated(*map(backends.to_host, functions[key](prompt_ids, prompt_is_token, uniforms)))


class _Generate:
    """The traced function of one (length, sampler, stop ids): arrays in, the arrays of `Generated` out."""

    def __init__(self, backbone, max_new_tokens, sampler, stops):
        self.backbone, self.length, self.sampler, self.stops = backbone, max_new_tokens, sampler, stops

    def __call__(self, prompt_ids, prompt_is_token, uniforms):
        backbone, length = self.backbone(), self.length
        batch, prompt_length = prompt_ids.shape
        config = backbone.config
        matrix = backbone.token_embedding.as_output_matrix()
        counts = ops.sum(ops.cast(prompt_is_token, "int32"), axis=1)
        # Slots after the prompt hold later positions than any query that runs before they are written: causality hides
        # them.
        key_positions = ops.concatenate(
            [positions_from_padding(prompt_is_token), counts[:, None] + ops.arange(length)[None]], axis=1
        )
        key_segments = ops.concatenate([ops.cast(prompt_is_token, "int32"), ops.ones((batch, length), "int32")], axis=1)

        def step(token_ids, positions, segments, cache, slot):
            inputs = {"token_ids": token_ids, "positions": positions, "segment_ids": segments}
            inputs |= {"key_positions": key_positions, "key_segments": key_segments}
            hidden, cache = backbone(inputs, cache=cache, cache_index=slot)
            # (b, d) and not (b, 1, d): torch would copy the matrix once a row of a strided (b, 1, d).
            return full_logits(hidden[:, -1], matrix, config.final_logit_soft_cap), cache

        def is_stop(tokens):
            stop = ops.zeros((batch,), "bool")
            for stop_id in self.stops:
                stop = ops.logical_or(stop, tokens == stop_id)
            return stop

        cache = backbone.empty_cache(batch, prompt_length + length)
        positions, segments = key_positions[:, :prompt_length], key_segments[:, :prompt_length]
        logits, cache = step(prompt_ids, positions, segments, cache, 0)
        tokens, log_probs = sample(logits, uniforms[:, 0], self.sampler)
        columns = ops.arange(length, dtype="int32")[None]
        written = ops.where(columns == 0, tokens[:, None], config.pad_token_id)
        log_probs = ops.where(columns == 0, log_probs[:, None], 0.0)
        lengths = ops.ones((batch,), "int32")

        def unfinished(index, tokens, finished, *_):
            return ops.logical_and(index < length, ops.logical_not(ops.all(finished)))

        def body(index, tokens, finished, written, log_probs, lengths, cache):
            position = (counts + index - 1)[:, None]
            logits, cache = step(
                tokens[:, None], position, ops.ones((batch, 1), "int32"), cache, prompt_length + index - 1
            )
            drawn, of_drawn = sample(logits, ops.take(uniforms, index, axis=1), self.sampler)
            tokens = ops.where(finished, config.pad_token_id, drawn)
            written = ops.where(columns == index, tokens[:, None], written)
            log_probs = ops.where(columns == index, ops.where(finished, 0.0, of_drawn)[:, None], log_probs)
            lengths = lengths + ops.cast(ops.logical_not(finished), "int32")
            return index + 1, tokens, ops.logical_or(finished, is_stop(tokens)), written, log_probs, lengths, cache

        start = (ops.convert_to_tensor(1, "int32"), tokens, is_stop(tokens), written, log_probs, lengths, cache)
        _, _, finished, written, log_probs, lengths, _ = ops.while_loop(unfinished, body, start)
        return written, columns < lengths[:, None], finished, log_probs
