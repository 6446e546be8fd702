"""Typed examples to token ids, with the place of each for error messages."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from gemma_keras.text import chat
from gemma_keras.text.chat import EncodedExample
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.columns import Conversation, Preference, PromptCompletion, Text, as_messages
from pipelines.data.packing import fit_length
from pipelines.host.errors import ConfigError, DataError
from pipelines.schema.base import Overlong


@dataclasses.dataclass(frozen=True)
class EncodedData:
    """Examples that fit `max_length`. `rows`: index of each in the input. `dropped`, `truncated`: how many were
    over-long."""

    examples: list
    rows: list[int]
    dropped: int
    truncated: int


@dataclasses.dataclass(frozen=True)
class EncodedPair:
    """A preference as exact token ids.

    Args:
        prompt_ids: ids of the prompt. chosen_ids, rejected_ids: ids of prompt and response together.
        chosen_length, rejected_length: response tokens at their end, at least one.
        margin: how much better chosen is, for the loss.
        probability: the labelling model's p(chosen wins), None where unknown.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_length: int
    rejected_length: int
    margin: float = 0.0
    probability: float | None = None


def encode_texts(
    tokenizer: GemmaTokenizer | None, texts: Sequence[Text], max_length: int, overlong: Overlong
) -> EncodedData:
    """bos, text, eos of each; everything but bos bears loss.

    Raises:
        DataError: as `fit_length`.
    """
    return _encode(
        texts, lambda example: chat.encode_text(need_tokenizer(tokenizer), example.text), max_length, overlong
    )


def encode_instructions(
    tokenizer: GemmaTokenizer | None,
    examples: Sequence[Text | Conversation | PromptCompletion],
    max_length: int,
    overlong: Overlong,
) -> EncodedData:
    """Turns of each, the loss on the model's turns only; plain text bears loss everywhere.

    Raises:
        DataError: as `fit_length`, or turns that the tokenizer's family cannot hold.
    """
    tokenizer = need_tokenizer(tokenizer)

    def encode(example: Text | Conversation | PromptCompletion) -> EncodedExample:
        if isinstance(example, Text):
            return chat.encode_text(tokenizer, example.text)
        if isinstance(example, Conversation):
            return chat.encode_conversation(tokenizer, example.messages)
        if example.prompt_ids is not None and example.completion_ids is not None:
            prompt, response = example.prompt_ids, example.completion_ids
            _check_vocabulary(tokenizer, prompt, response)
            return EncodedExample(prompt + response, [False] * len(prompt) + [True] * len(response))
        return chat.encode_pair(tokenizer, example.prompt, example.completion)

    return _encode(examples, encode, max_length, overlong)


def encode_preferences(
    tokenizer: GemmaTokenizer | None, pairs: Sequence[Preference], max_length: int, overlong: Overlong
) -> EncodedData:
    """Prompt and response ids of both sides: those that were sampled where the row has them, else encoded from the
    text.

    Args:
        overlong: for a pair with a side over `max_length` tokens: "error", "drop" (the whole pair), or "truncate" (the
            response's end; a pair that would lose a whole response is dropped).

    Raises:
        DataError: "error" and a pair is too long; or none is left.
    """
    kept, rows, dropped, truncated = [], [], 0, 0
    for row, pair in enumerate(pairs):
        encoded = _at(pair.origin, functools.partial(_encode_pair, tokenizer, pair))
        longest = max(len(encoded.chosen_ids), len(encoded.rejected_ids))
        if longest > max_length:
            if overlong == "error":
                raise DataError(
                    f"{pair.origin}: {longest} tokens, more than max_length {max_length}. Raise it, or set `overlong: "
                    "drop`."
                )
            cut = _truncated(encoded, max_length)
            if overlong == "drop" or cut is None:
                dropped += 1
                continue
            encoded, truncated = cut, truncated + 1
        kept.append(encoded)
        rows.append(row)
    if not kept:
        raise DataError(f"{pairs[0].origin}: all {len(pairs)} pairs are over max_length {max_length} tokens. Raise it.")
    return EncodedData(kept, rows, dropped, truncated)


def need_tokenizer(tokenizer: GemmaTokenizer | None) -> GemmaTokenizer:
    """The tokenizer, where there is one.

    Raises:
        ConfigError: a model without a tokenizer.
    """
    if tokenizer is None:
        raise ConfigError(
            "the model has no tokenizer, so text cannot be encoded. Expected tokenizer.model or tokenizer.json in its "
            "folder. Copy one there, or start from another model."
        )
    return tokenizer


def _encode(examples: Sequence, encode: Callable, max_length: int, overlong: Overlong) -> EncodedData:
    encoded = [_at(example.origin, functools.partial(encode, example)) for example in examples]
    fitted = fit_length(encoded, max_length, overlong, [example.origin for example in examples])
    return EncodedData(fitted.examples, fitted.kept, fitted.dropped, fitted.truncated)


def _at(origin: str, encode: Callable[[], Any]) -> Any:
    """The encoding, its errors about turns told with the row's place."""
    try:
        return encode()
    except ValueError as error:
        raise DataError(f"{origin}: {error}") from error


def _encode_pair(tokenizer: GemmaTokenizer | None, pair: Preference) -> EncodedPair:
    if pair.prompt_ids is not None and pair.chosen_ids is not None and pair.rejected_ids is not None:
        chosen, rejected = pair.chosen_ids, pair.rejected_ids
        _check_vocabulary(tokenizer, pair.prompt_ids, chosen, rejected)
        both = (pair.prompt_ids + chosen, pair.prompt_ids + rejected)
        return EncodedPair(pair.prompt_ids, *both, len(chosen), len(rejected), pair.margin, pair.probability)
    tokenizer = need_tokenizer(tokenizer)
    sides = []
    for name in ("chosen", "rejected"):
        messages = pair.conversation(name)
        response = chat.encode_response(tokenizer, messages[-1]["content"])
        sides.append((chat.encode_prompt(tokenizer, messages[:-1]) + response, len(response)))
    (chosen, chosen_length), (rejected, rejected_length) = sides
    prompt_ids = chat.encode_prompt(tokenizer, as_messages(pair.prompt))
    return EncodedPair(prompt_ids, chosen, rejected, chosen_length, rejected_length, pair.margin, pair.probability)


def _check_vocabulary(tokenizer: GemmaTokenizer | None, *ids: list[int]) -> None:
    highest = max(map(max, ids))
    if tokenizer is not None and highest >= tokenizer.vocabulary_size():
        raise ValueError(
            f"token id {highest} is outside the model's vocabulary of {tokenizer.vocabulary_size()}. "
            "Rows with ids belong to the tokenizer that sampled them; start from that model."
        )


def _truncated(pair: EncodedPair, max_length: int) -> EncodedPair | None:
    lengths = []
    for ids, length in ((pair.chosen_ids, pair.chosen_length), (pair.rejected_ids, pair.rejected_length)):
        lengths.append(length - max(0, len(ids) - max_length))
    chosen, rejected = pair.chosen_ids[:max_length], pair.rejected_ids[:max_length]
    if min(lengths) < 1 or chosen == rejected:
        return None
    return dataclasses.replace(
        pair, chosen_ids=chosen, rejected_ids=rejected, chosen_length=lengths[0], rejected_length=lengths[1]
    )
