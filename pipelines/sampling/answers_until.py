"""Answers that end at a text: what a benchmark with free answers asks for."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from gemma_keras.generation import Decoding
from gemma_keras.inputs.padding import padded, round_up
from gemma_keras.random import uniforms
from gemma_keras.sampling import Sampler
from gemma_keras.text.stop_strings import StopStrings
from gemma_keras.text_generation import STEP_MULTIPLE
from pipelines.data.shapes import length_rungs, rung_for
from pipelines.host.parts import Keep, compute_now
from pipelines.sampling.continuation_batches import best_widths
from pipelines.sampling.prefixes import CACHE_SHARE, PrefixReader, prefix_arrays, prefix_length


@dataclasses.dataclass(frozen=True)
class Question:
    """What is to be answered.

    Args:
        context: ids, at least one; it loses its beginning where it leaves no room.
        until: texts that end the answer, and are cut off.
        max_new_tokens: of the answer.
        sampler: how its tokens are chosen.
        key: what its draws are keyed by beside the seed.
        group: questions of one group may all begin alike, as with examples before each.
    """

    context: Sequence[int]
    until: tuple[str, ...]
    max_new_tokens: int
    sampler: Sampler
    key: tuple[int | str, ...]
    group: Hashable = None


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Questions that are answered together.

    Args:
        numbers: which. rows, width, steps: b, t and r: of their contexts and of their answers.
        prefix: ids that their contexts begin with, perhaps none; prefix_width: what they are padded to.
    """

    numbers: Sequence[int]
    rows: int
    width: int
    steps: int
    prefix: Sequence[int]
    prefix_width: int


class UntilGenerator:
    """Answers of a model, of which each ends with one of its texts, a stop token, or its room.

    Args:
        model: GemmaCausalLM with a tokenizer.
        batch_tokens: of the contexts and answers of a batch together.
        max_length: tokens of a context and its answer.
        seed: of the draws.
    """

    def __init__(self, model: Any, batch_tokens: int, max_length: int, seed: int) -> None:
        self._model, self._batch_tokens, self._max_length, self._seed = model, batch_tokens, max_length, seed
        self._read_prefix = PrefixReader(model)

    def __call__(
        self,
        asked: Sequence[Question],
        keep: Keep = compute_now,
        advance: Callable[[int, int], None] = lambda answers, tokens: None,
    ) -> tuple[list[str], int]:
        """The answers' texts, and how many contexts lost their beginning.

        Args:
            keep: keeps the arrays of each batch, for when this is interrupted.
            advance: called after each batch with the number of answers and of their tokens.

        Raises:
            ValueError: an answer that leaves no room for a context.
        """
        steps = [round_up(one.max_new_tokens, STEP_MULTIPLE) for one in asked]
        contexts = [self._cut(one.context, one.max_new_tokens) for one in asked]
        batches = self._batches(asked, contexts, steps)
        texts = [""] * len(asked)
        for number, batch in enumerate(batches):
            part = keep(str(number), functools.partial(self._sampled, asked, contexts, batch), len(batches))
            for row, one in enumerate(batch.numbers):
                texts[one] = self._text(asked[one], part["token_ids"][row, : part["lengths"][row]].tolist())[0]
            advance(len(batch.numbers), int(part["lengths"].sum()))
        return texts, sum(len(short) < len(one.context) for short, one in zip(contexts, asked, strict=True))

    def _cut(self, context: Sequence[int], max_new_tokens: int) -> Sequence[int]:
        room = self._max_length - max_new_tokens
        if room < 1:
            raise ValueError(f"max_length {self._max_length} leaves no room beside answers of {max_new_tokens} tokens")
        return context[-room:]

    def _batches(
        self, asked: Sequence[Question], contexts: Sequence[Sequence[int]], steps: Sequence[int]
    ) -> list[_Batch]:
        """Questions of one sampler and room, from the longest context on."""
        groups: dict[tuple[Sampler, int, Hashable], list[int]] = {}
        for number, one in enumerate(asked):
            groups.setdefault((one.sampler, steps[number], one.group), []).append(number)
        prefixes = {}
        for key, numbers in groups.items():
            found = [contexts[number] for number in numbers]
            prefixes[key] = found[0][: prefix_length(found, sum(map(len, found)))]
        rungs = length_rungs(max(1, *map(len, prefixes.values())))
        batches = []
        for key, numbers in groups.items():
            prefix, room = prefixes[key], key[1]
            before = rung_for(len(prefix), rungs) if prefix else 0
            left = sorted(numbers, key=lambda number: -len(contexts[number]))
            widths = best_widths([len(contexts[number]) - len(prefix) for number in left])
            while left:
                width = rung_for(len(contexts[left[0]]) - len(prefix), widths)
                most = CACHE_SHARE * self._batch_tokens // (before + width + room)
                rows = max(1, min(self._batch_tokens // (width + room), most, len(numbers)))
                batches.append(_Batch(left[:rows], rows, width, room, prefix, before))
                left = left[rows:]
        return batches

    def _sampled(
        self, asked: Sequence[Question], contexts: Sequence[Sequence[int]], batch: _Batch
    ) -> Mapping[str, np.ndarray]:
        """Of a batch token_ids int32 (k, r) and lengths int32 (k,): what was sampled of each of its k questions."""
        filled = [*batch.numbers, *[batch.numbers[0]] * (batch.rows - len(batch.numbers))]
        model, sampler = self._model, asked[batch.numbers[0]].sampler
        pad, own = model.config.pad_token_id, [contexts[n][len(batch.prefix) :] for n in filled]
        ids, is_token = padded(own, pad, batch.width, side="left")
        draws = np.zeros((batch.rows, batch.steps), np.float32)
        if sampler.temperature:
            draws = np.stack([uniforms(self._seed, *asked[n].key, shape=batch.steps) for n in filled])
        stops = model.tokenizer.stop_token_ids
        prefix = None
        if batch.prefix:
            cache = self._read_prefix(batch.prefix, batch.prefix_width)
            prefix = cache, prefix_arrays(batch.prefix, batch.prefix_width, pad)["padding_mask"]
        decoding = Decoding(model, ids, is_token, batch.steps, draws, sampler, stops, prefix)
        found = decoding.to_the_end(lambda row, ids: self._text(asked[filled[row]], ids)[1])
        real = slice(0, len(batch.numbers))
        return {
            "token_ids": found.token_ids[real],
            "lengths": found.response_mask[real].sum(axis=1, dtype=np.int32),
        }

    def _text(self, one: Question, sampled: Sequence[int]) -> tuple[str, bool]:
        """The answer so far, and whether nothing can be added to it."""
        sampled = sampled[: one.max_new_tokens]
        text, is_cut = StopStrings(one.until).cut(self._model.tokenizer.decode(sampled))
        return text, is_cut or len(sampled) == one.max_new_tokens
