"""Prefill and decode with a key-value cache.

The answers to one prompt share its prefill. Where at most half the rows of a large batch are left, they go on in one of
half its size.
"""

import dataclasses
import weakref
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from gemma_keras import backends
from gemma_keras.backends import reference
from gemma_keras.head import full_logits
from gemma_keras.layers.direct_call import call_model
from gemma_keras.layers.masks import positions_from_padding
from gemma_keras.limits import LEAST_HALVED_ROWS, LONG_DECODING
from gemma_keras.sampling import Sampler, sample

STEPS_BETWEEN_LOOKS = 8
"""Of `Decoding.to_the_end`."""
_COMPILED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_PROGRAMS = {"whole": "generation", "start": "generation_start", "until": "generation_steps"}
"""Methods of `_Generate` → the names under which their shapes are counted."""


@dataclasses.dataclass(frozen=True)
class Generated:
    """What was sampled.

    Attributes:
        token_ids: int32 (b, r); the pad id after a row's stop token.
        response_mask: bool (b, r), True where the model sampled the token, its stop token included.
        finished: bool (b,), True where a stop token came.
        log_probs: float32 (b, r), of each sampled token under the whole distribution at the sampler's temperature,
            before top_k and top_p; of a greedy sampler at temperature 1. 0 where nothing was sampled.
        entropy: float32 (b, r) in nats, of that distribution, 0 where nothing was sampled; None where it was not asked
            for, and of steps that were cut.
    """

    token_ids: np.ndarray
    response_mask: np.ndarray
    finished: np.ndarray
    log_probs: np.ndarray
    entropy: np.ndarray | None = None

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
    backbone, prompt_ids, prompt_is_token, max_new_tokens: int, uniforms, sampler: Sampler, stop_token_ids,
    with_entropy: bool = False,
) -> Generated:  # fmt: skip
    """Continue left-padded prompts.

    Each row stops at its first stop token; the whole batch stops when every row has. The uniforms are an input, so that
    a draw depends on what it is for and not on the batch it happens in.

    Args:
        backbone: `GemmaBackbone`, or a model that has one as `.backbone`.
        prompt_ids: int (q, p), padded on the left. prompt_is_token: bool (q, p), True for real tokens, at least one a
            row.
        max_new_tokens: r >= 1.
        uniforms: float32 (b, r) in [0, 1), one a step; only its shape matters for greedy sampling. b is q, or k * q for
            k answers to each prompt: row i * k + j is answer j to prompt i.
        sampler: `Sampler`.
        stop_token_ids: ids that end a row; may be empty.
        with_entropy: also measure the entropy at each step, a pass over the logits.

    Raises:
        ValueError: a row without a token, padding on the right, or uniforms of another shape.
    """
    run = _Call(backbone, prompt_ids, prompt_is_token, max_new_tokens, uniforms, sampler, stop_token_ids, with_entropy)
    with backends.decoding_weights(max_new_tokens):
        return Generated(*map(backends.to_host, run.program("whole")(*run.arrays)))


class Decoding:
    """Generation that can be looked at, and rows of it ended, on the way: the same tokens as `generate_tokens`, some
    steps at a time.

    Args: those of `generate_tokens`, and
        prefix: what stands before every prompt and has been read: a cache of p slots, list of (keys, values) a layer,
            each (1, p, k, h), and which slots hold a token, bool (1, p); or None.
    Making it reads the prompts and samples the first token of each row.
    """

    def __init__(
        self, backbone, prompt_ids, prompt_is_token, max_new_tokens: int, uniforms, sampler: Sampler, stop_token_ids,
        prefix: tuple | None = None,
    ):  # fmt: skip
        run = _Call(backbone, prompt_ids, prompt_is_token, max_new_tokens, uniforms, sampler, stop_token_ids)
        self._length, self._done, self._advance = max_new_tokens, 1, run.program("until")
        self._weights = backends.decoding_weights(max_new_tokens)
        with self._weights:
            self._state = run.program("start")(*run.arrays, *(prefix or ()))

    @property
    def is_over(self) -> bool:
        """True where every row has ended, or has no room for more."""
        return self._done >= self._length or bool(backends.to_host(self._state["finished"]).all())

    def advance(self, steps: int) -> None:
        """Sample up to so many more tokens a row; fewer where every row ends before."""
        self._done = min(self._done + steps, self._length)
        with self._weights:
            self._state = self._advance(self._state, np.int32(self._done))

    def end(self, rows: np.ndarray) -> None:
        """Sample no more in these rows, bool (b,)."""
        finished = backends.to_host(self._state["finished"])
        self._state = {**self._state, "finished": ops.convert_to_tensor(finished | rows)}

    def to_the_end(self, has_ended: Callable[[int, list[int]], bool]) -> Generated:
        """Sample on until every row is over, with a look every few steps at which are.

        Args:
            has_ended: from a row and its sampled ids to whether nothing more is wanted of it, as where a text ends it.
        """
        while True:
            responses = self.generated().responses()
            self.end(np.array([has_ended(row, ids) for row, ids in enumerate(responses)]))
            if self.is_over:
                return self.generated()
            self.advance(STEPS_BETWEEN_LOOKS)

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

    def __init__(
        self, backbone, prompt_ids, prompt_is_token, max_new_tokens, uniforms, sampler, stop_token_ids,
        with_entropy=False,
    ):  # fmt: skip
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
        rows = len(uniforms) if uniforms.ndim else 0
        if max_new_tokens < 1 or uniforms.shape != (rows, max_new_tokens) or not rows or rows % len(prompt_ids):
            expected = (len(prompt_ids), max_new_tokens)
            raise ValueError(
                f"`uniforms` must have shape (b, max_new_tokens) = {expected}, or a multiple of these rows for several "
                f"answers to each prompt. Received: {uniforms.shape}"
            )
        self.arrays = (prompt_ids, prompt_is_token, uniforms)
        # Without its seed, which the uniforms come from: it is no part of the program.
        stops = tuple(int(i) for i in stop_token_ids)
        self.key = (max_new_tokens, dataclasses.replace(sampler, seed=None), stops, with_entropy)

    def program(self, part: str):
        """The compiled method `part` of `_Generate`."""
        functions = _COMPILED.setdefault(self.backbone, {})
        if (part, *self.key) not in functions:
            # A weak reference: the compiled function lives in a table keyed by the backbone and must not keep it alive.
            traced = getattr(_Generate(weakref.ref(self.backbone), *self.key), part)
            functions[part, *self.key] = backends.compile_forward(traced, [self.backbone], _PROGRAMS[part])
        return functions[part, *self.key]


class _Generate:
    """The traced functions of one (length, sampler, stop ids, with entropy or without).

    Between them goes a dict: what was given (`prompt_is_token`, `uniforms`), the number of tokens sampled (`index`),
    the last of each row (`tokens`), and what is in `Generated`. But for `index` all of it is row by row.
    """

    def __init__(self, backbone, length, sampler, stops, with_entropy):
        self.backbone, self.length, self.sampler, self.stops = backbone, length, sampler, stops
        self.measures = ("log_probs", "entropy") if with_entropy else ("log_probs",)

    def whole(self, prompt_ids, prompt_is_token, uniforms):
        """From the prompts to the arrays of `Generated`."""
        state = self._to_the_end(self.start(prompt_ids, prompt_is_token, uniforms), 1 + (self.length > LONG_DECODING))
        is_sampled = self._columns() < state["lengths"][:, None]
        return state["written"], is_sampled, state["finished"], *(state[name] for name in self.measures)

    def start(self, prompt_ids, prompt_is_token, uniforms, prefix=None, prefix_is_token=None):
        """Read the prompts and sample the first token of each row."""
        prompts, prompt_length = prompt_ids.shape
        batch = uniforms.shape[0]
        cache, before = self.backbone().empty_cache(prompts, prompt_length + self.length), 0
        if prefix is not None:
            before = prefix_is_token.shape[1]
            cache = [tuple(map(behind, shared, own)) for shared, own in zip(prefix, cache, strict=True)]
            prompt_is_token = behind(prefix_is_token, prompt_is_token)
        step, (positions, segments) = self._stepper(prompt_is_token)
        own = slice(before, before + prompt_length)
        logits, cache = step(prompt_ids, positions[:, own], segments[:, own], cache, before)
        if batch > prompts:
            rows = np.repeat(np.arange(prompts, dtype=np.int32), batch // prompts)
            logits, cache, prompt_is_token = _rows_of((logits, cache, prompt_is_token), rows)
        tokens, measured = self._draw(logits, uniforms[:, 0])
        columns = self._columns()
        return {
            "prompt_is_token": prompt_is_token,
            "uniforms": uniforms,
            "index": np.int32(1),
            "tokens": tokens,
            "finished": self._is_stop(tokens),
            "written": ops.where(columns == 0, tokens[:, None], self.backbone().config.pad_token_id),
            "lengths": ops.ones((batch,), "int32"),
            "cache": cache,
            **{name: ops.where(columns == 0, measured[name][:, None], 0.0) for name in self.measures},
        }

    def until(self, state, stop, most_left=0):
        """Sample until `stop` tokens a row are there, or at most so many rows have not ended."""
        prompt_is_token, uniforms = state["prompt_is_token"], state["uniforms"]
        batch, prompt_length = prompt_is_token.shape
        step, _ = self._stepper(prompt_is_token)
        counts = ops.sum(ops.cast(prompt_is_token, "int32"), axis=1)
        columns, pad = self._columns(), self.backbone().config.pad_token_id

        def goes_on(index, tokens, finished, *_):
            left = ops.sum(ops.cast(ops.logical_not(finished), "int32"))
            return (index < stop) & (left > most_left)

        def body(index, tokens, finished, written, lengths, cache, *measures):
            position, segment = (counts + index - 1)[:, None], ops.ones((batch, 1), "int32")
            logits, cache = step(tokens[:, None], position, segment, cache, prompt_length + index - 1)
            drawn, measured = self._draw(logits, uniforms[:, index])
            tokens = ops.where(finished, pad, drawn)
            written = ops.where(columns == index, tokens[:, None], written)
            written_measures = [
                ops.where(columns == index, ops.where(finished, 0.0, measured[name])[:, None], before)
                for name, before in zip(self.measures, measures, strict=True)
            ]
            lengths = lengths + ops.cast(ops.logical_not(finished), "int32")
            finished = ops.logical_or(finished, self._is_stop(tokens))
            return index + 1, tokens, finished, written, lengths, cache, *written_measures

        moving = ("index", "tokens", "finished", "written", "lengths", "cache", *self.measures)
        found = backends.while_loop(goes_on, body, tuple(state[name] for name in moving))
        return {**state, **dict(zip(moving, found, strict=True))}

    def _to_the_end(self, state, halvings):
        """Sample until every row has ended or is full; once at most half of them are left, these alone."""
        batch = state["tokens"].shape[0]
        if not self.stops or not halvings or batch < LEAST_HALVED_ROWS:
            return self.until(state, self.length)
        half = batch // 2
        state = self.until(state, self.length, half)
        order = ops.argsort(ops.cast(state["finished"], "int32"))  # those that are left come first
        index = state.pop("index")
        first = _rows_of(state, order[:half])
        first = self._to_the_end({**first, "index": index}, halvings - 1)
        place = ops.argsort(order)
        results = ("written", "lengths", "finished", *self.measures)
        rest = {name: ops.take(state[name], order[half:], axis=0) for name in results}
        return {name: ops.take(ops.concatenate([first[name], rest[name]]), place, axis=0) for name in results}

    def _draw(self, logits, uniforms):
        """A token a row, int32 (b,), and what is measured there, a dict of float32 (b,)."""
        tokens, log_probs = sample(logits, uniforms, self.sampler)
        measured = {"log_probs": log_probs}
        if "entropy" in self.measures:
            tempered = logits / (self.sampler.temperature or 1.0)
            measured["entropy"] = reference.softmax_log_probs(tempered, tokens)[1]
        return tokens, measured

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
            hidden, cache = call_model(backbone, inputs, cache=cache, cache_index=slot)
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


def behind(shared, own):
    """What all rows begin with, (1, p, ...), and then what each has of its own, (b, s, ...): (b, p + s, ...)."""
    return ops.concatenate([ops.broadcast_to(shared, (own.shape[0], *shared.shape[1:])), own], axis=1)


def _rows_of(structure, rows):
    """Some rows, int (n,), of each tensor; a copy, as a cache is written to in place."""
    return keras.tree.map_structure(lambda x: ops.take(x, rows, axis=0), structure)
