"""Prefill and decode with a key-value cache."""

import dataclasses
import weakref
from collections.abc import Sequence

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

    def limited(self, lengths: Sequence[int], pad_token_id: int) -> "Generated":
        """Each row's first so many steps, int (b,); a row whose stop token came later counts as unfinished."""
        kept = np.arange(self.token_ids.shape[1])[None] < np.asarray(lengths)[:, None]
        return Generated(
            np.where(kept, self.token_ids, pad_token_id),
            self.response_mask & kept,
            self.finished & ~(self.response_mask & ~kept).any(axis=1),
            np.where(kept, self.log_probs, 0.0),
        ).shortened(int(np.max(lengths)))

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
    run = _Call(backbone, prompt_ids, prompt_is_token, max_new_tokens, uniforms, sampler, stop_token_ids)
    return Generated(*map(backends.to_host, run.program("whole")(*run.arrays)))


class Decoding:
    """Generation that can be looked at, and rows of it ended, on the way: the same tokens as `generate_tokens`, some
    steps at a time.

    Args: those of `generate_tokens`. Making it reads the prompts and samples the first token of each row.
    """

    def __init__(
        self, backbone, prompt_ids, prompt_is_token, max_new_tokens: int, uniforms, sampler: Sampler, stop_token_ids
    ):  # fmt: skip
        run = _Call(backbone, prompt_ids, prompt_is_token, max_new_tokens, uniforms, sampler, stop_token_ids)
        self._length, self._done, self._advance = max_new_tokens, 1, run.program("until")
        self._state = run.program("start")(*run.arrays)

    @property
    def is_over(self) -> bool:
        """True where every row has ended, or has no room for more."""
        return self._done >= self._length or bool(backends.to_host(self._state["finished"]).all())

    def advance(self, steps: int) -> None:
        """Sample up to so many more tokens a row; fewer where every row ends before."""
        self._done = min(self._done + steps, self._length)
        self._state = self._advance(self._state, np.int32(self._done))

    def end(self, rows: np.ndarray) -> None:
        """Sample no more in these rows, bool (b,)."""
        finished = backends.to_host(self._state["finished"])
        self._state = {**self._state, "finished": ops.convert_to_tensor(finished | rows)}

    def generated(self) -> Generated:
        """What has been sampled so far."""
        found = {name: backends.to_host(self._state[name]) for name in ("written", "lengths", "finished", "log_probs")}
        columns = slice(0, self._done)
        is_sampled = np.arange(self._done)[None] < found["lengths"][:, None]
        return Generated(found["written"][:, columns], is_sampled, found["finished"], found["log_probs"][:, columns])


def forget_programs(backbone) -> None:
    """Drop what was compiled for a backbone, as its blocks may have been changed since."""
    _COMPILED.pop(backbone, None)


class _Call:
    """One call's arrays, checked, and the programs of its length, sampler and stop ids."""

    def __init__(self, backbone, prompt_ids, prompt_is_token, max_new_tokens, uniforms, sampler, stop_token_ids):
        self.backbone = getattr(backbone, "backbone", backbone)
        prompt_ids = np.asarray(prompt_ids, np.int32)
        prompt_is_token = np.asarray(prompt_is_token, bool)
        uniforms = np.asarray(uniforms, np.float32)
        if prompt_ids.ndim != 2 or prompt_ids.shape != prompt_is_token.shape:
            raise ValueError(
                f"`prompt_ids` and `prompt_is_token` must be (b, p). Received: {prompt_ids.shape} and "
                f"{prompt_is_token.shape}"
            )
        if not prompt_is_token[:, -1].all():
            raise ValueError(
                "Prompts must be padded on the left: the last column of `prompt_is_token` must be all True"
            )
        if max_new_tokens < 1 or uniforms.shape != (len(prompt_ids), max_new_tokens):
            expected = (len(prompt_ids), max_new_tokens)
            raise ValueError(f"`uniforms` must have shape (b, max_new_tokens) = {expected}. Received: {uniforms.shape}")
        self.arrays = (prompt_ids, prompt_is_token, uniforms)
        # Without its seed, which the uniforms come from: it is no part of the program.
        self.key = (max_new_tokens, dataclasses.replace(sampler, seed=None), tuple(int(i) for i in stop_token_ids))

    def program(self, part: str):
        """The compiled method `part` of `_Generate`."""
        functions = _COMPILED.setdefault(self.backbone, {})
        if (part, *self.key) not in functions:
            # A weak reference: the compiled function lives in a table keyed by the backbone and must not keep it alive.
            traced = getattr(_Generate(weakref.ref(self.backbone), *self.key), part)
            functions[part, *self.key] = backends.compile_forward(traced, [self.backbone])
        return functions[part, *self.key]


class _Generate:
    """The traced functions of one (length, sampler, stop ids).

    Between them goes a dict: what was given (`prompt_is_token`, `uniforms`), the number of tokens sampled (`index`),
    the last of each row (`tokens`), and what is in `Generated`.
    """

    def __init__(self, backbone, length, sampler, stops):
        self.backbone, self.length, self.sampler, self.stops = backbone, length, sampler, stops

    def whole(self, prompt_ids, prompt_is_token, uniforms):
        """From the prompts to the arrays of `Generated`."""
        state = self.until(self.start(prompt_ids, prompt_is_token, uniforms), self.length)
        is_sampled = self._columns() < state["lengths"][:, None]
        return state["written"], is_sampled, state["finished"], state["log_probs"]

    def start(self, prompt_ids, prompt_is_token, uniforms):
        """Read the prompts and sample the first token of each row."""
        batch, prompt_length = prompt_ids.shape
        step, (positions, segments) = self._stepper(prompt_is_token)
        cache = self.backbone().empty_cache(batch, prompt_length + self.length)
        logits, cache = step(prompt_ids, positions[:, :prompt_length], segments[:, :prompt_length], cache, 0)
        tokens, log_probs = sample(logits, uniforms[:, 0], self.sampler)
        columns = self._columns()
        return {
            "prompt_is_token": prompt_is_token,
            "uniforms": uniforms,
            "index": ops.convert_to_tensor(1, "int32"),
            "tokens": tokens,
            "finished": self._is_stop(tokens),
            "written": ops.where(columns == 0, tokens[:, None], self.backbone().config.pad_token_id),
            "log_probs": ops.where(columns == 0, log_probs[:, None], 0.0),
            "lengths": ops.ones((batch,), "int32"),
            "cache": cache,
        }

    def until(self, state, stop):
        """Sample until `stop` tokens a row are there, or every row has ended."""
        prompt_is_token, uniforms = state["prompt_is_token"], state["uniforms"]
        batch, prompt_length = prompt_is_token.shape
        step, _ = self._stepper(prompt_is_token)
        counts = ops.sum(ops.cast(prompt_is_token, "int32"), axis=1)
        columns, pad = self._columns(), self.backbone().config.pad_token_id

        def unfinished(index, tokens, finished, *_):
            return ops.logical_and(index < stop, ops.logical_not(ops.all(finished)))

        def body(index, tokens, finished, written, log_probs, lengths, cache):
            position, segment = (counts + index - 1)[:, None], ops.ones((batch, 1), "int32")
            logits, cache = step(tokens[:, None], position, segment, cache, prompt_length + index - 1)
            drawn, of_drawn = sample(logits, ops.take(uniforms, index, axis=1), self.sampler)
            tokens = ops.where(finished, pad, drawn)
            written = ops.where(columns == index, tokens[:, None], written)
            log_probs = ops.where(columns == index, ops.where(finished, 0.0, of_drawn)[:, None], log_probs)
            lengths = lengths + ops.cast(ops.logical_not(finished), "int32")
            finished = ops.logical_or(finished, self._is_stop(tokens))
            return index + 1, tokens, finished, written, log_probs, lengths, cache

        moving = ("index", "tokens", "finished", "written", "log_probs", "lengths", "cache")
        found = ops.while_loop(unfinished, body, tuple(state[name] for name in moving))
        return {**state, **dict(zip(moving, found, strict=True))}

    def _stepper(self, prompt_is_token):
        """The function from tokens and cache to logits and cache; and of every slot position and segment, int32 (b, p +
        r)."""
        batch, backbone = prompt_is_token.shape[0], self.backbone()
        counts = ops.sum(ops.cast(prompt_is_token, "int32"), axis=1)
        # Slots after the prompt hold later positions than any query that runs before they are written: causality hides
        # them.
        later = counts[:, None] + self._columns()
        key_positions = ops.concatenate([positions_from_padding(prompt_is_token), later], axis=1)
        written = ops.ones((batch, self.length), "int32")
        key_segments = ops.concatenate([ops.cast(prompt_is_token, "int32"), written], axis=1)
        matrix = backbone.token_embedding.as_output_matrix()  # once, and not once a step: it may be cast

        def step(token_ids, positions, segments, cache, slot):
            inputs = {"token_ids": token_ids, "positions": positions, "segment_ids": segments}
            inputs |= {"key_positions": key_positions, "key_segments": key_segments}
            hidden, cache = backbone(inputs, cache=cache, cache_index=slot)
            # (b, d) and not (b, 1, d): torch would copy the matrix once a row of a strided (b, 1, d).
            return full_logits(hidden[:, -1], matrix, backbone.config.final_logit_soft_cap), cache

        return step, (key_positions, key_segments)

    def _is_stop(self, tokens):
        stop = ops.zeros(tokens.shape, "bool")
        for stop_id in self.stops:
            stop = ops.logical_or(stop, tokens == stop_id)
        return stop

    def _columns(self):
        # With its type: without one TensorFlow's is the width of Keras' float type, int16 for half precision.
        return ops.arange(self.length, dtype="int32")[None]
