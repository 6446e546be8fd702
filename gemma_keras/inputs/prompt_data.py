"""Whatever a user hands to `generate`, as lists of token ids and then as left-padded arrays."""

from collections.abc import Iterable

import numpy as np

from gemma_keras.errors import InputError
from gemma_keras.inputs.padding import padded, round_up
from gemma_keras.text import chat, infilling
from gemma_keras.text.marked_text import texts_in, warn_of_marks

_WIDTH_MULTIPLE = 16  # few prompt widths, so that few shapes are compiled

SINGLE_KINDS = ("text", "conversation", "infilling")
"""Kinds of one prompt that came without a list around it."""

NO_TOKENIZER = (
    "This model has no tokenizer: its folder holds no tokenizer.model. Pass token ids, or set `model.tokenizer`"
)


def encode(inputs, tokenizer, vocabulary_size: int, add_start_token: bool = True):
    """Prompts as ids.

    Args:
        inputs: a string, strings, a conversation (list of `{"role", "content"}`), conversations, `{"prefix", "suffix"}`
            or a list of them, lists of ids, an int array (b, p), or a dict of arrays "token_ids" and "padding_mask".
        tokenizer: `GemmaTokenizer`, or None where inputs are ids.
        vocabulary_size: ids must lie below it.
        add_start_token: put bos before a text.

    Returns:
        prompts: list of lists of ids, none empty. kind: "text", "conversation" or "infilling", with an s for several;
            or "ids".

    Raises:
        ValueError: another kind, an empty prompt, an id outside the vocabulary, text without a tokenizer.
    """
    if isinstance(inputs, dict) and "token_ids" in inputs:
        prompts, kind = _rows_of_arrays(inputs), "ids"
    else:
        warn_of_marks(texts_in(inputs))
        prompts, kind = _encode_rows(inputs, tokenizer)
        if kind in ("text", "texts") and not add_start_token:
            prompts = [prompt[1:] for prompt in prompts]
    if not prompts:
        raise ValueError("`inputs` is empty: expected at least one prompt")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"Prompt {row} is empty: expected at least one token, such as bos")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary_size:
            raise ValueError(
                f"Prompt {row} has a token id outside 0 to {vocabulary_size - 1}, the model's vocabulary. Received: "
                f"{prompt!r:.100}"
            )
    return prompts, kind


def _rows_of_arrays(inputs) -> list[list[int]]:
    ids = _integers(inputs["token_ids"])
    if ids is None or ids.ndim != 2:
        raise InputError(f"`token_ids` must be integers of shape (b, t). Received: {inputs['token_ids']!r:.100}")
    mask = np.ones(ids.shape, bool) if inputs.get("padding_mask") is None else np.asarray(inputs["padding_mask"], bool)
    if mask.shape != ids.shape:
        raise InputError(
            f"`padding_mask` must have the shape of `token_ids`, {ids.shape}. Received: padding_mask of {mask.shape}"
        )
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]


def whole_numbers(values) -> list[int] | None:
    """A sequence of integers as a list of ints; None for anything else, such as floats or a text."""
    numbers = _integers(values)
    return numbers.tolist() if numbers is not None and numbers.ndim == 1 else None


def _integers(values) -> np.ndarray | None:
    try:
        numbers = np.asarray(values)
    except ValueError:  # rows of several lengths
        return None
    return numbers if numbers.size == 0 or np.issubdtype(numbers.dtype, np.integer) else None


def width_of_arrays(inputs) -> int | None:
    """t of `{"token_ids": (b, t)}`, None for other inputs."""
    return np.asarray(inputs["token_ids"]).shape[1] if isinstance(inputs, dict) and "token_ids" in inputs else None


def _encode_rows(inputs, tokenizer):
    inputs = inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
    if isinstance(inputs, str):
        return [_text_ids(inputs, tokenizer)], "text"
    if isinstance(inputs, dict):
        return [_infilling_ids(inputs, tokenizer)], "infilling"
    if not isinstance(inputs, Iterable):
        raise InputError(f"`inputs` must be text, conversations, or a list of lists of ids. Received: {inputs!r:.100}")
    inputs = list(inputs)
    first = inputs[0] if inputs else []
    if isinstance(first, dict) and "prefix" in first:
        return [_infilling_ids(parts, tokenizer) for parts in inputs], "infillings"
    if isinstance(first, dict):
        return [_turn_ids(inputs, tokenizer)], "conversation"
    if isinstance(first, str):
        return [_text_ids(text, tokenizer) for text in inputs], "texts"
    if isinstance(first, (list, tuple, np.ndarray)):
        if len(first) and isinstance(first[0], dict):
            return [_turn_ids(turns, tokenizer) for turns in inputs], "conversations"
        rows = [whole_numbers(row) for row in inputs]
        if None in rows:
            wrong = rows.index(None)
            raise InputError(f"Prompt {wrong} must be a list of integers, its ids. Received: {inputs[wrong]!r:.100}")
        return rows, "ids"
    raise ValueError(
        f"`inputs` must be text, conversations, or a list of lists of ids. Received: a list of {type(first).__name__}"
    )


def _text_ids(text, tokenizer):
    if tokenizer is None:
        raise ValueError(NO_TOKENIZER)
    return [tokenizer.bos_token_id, *tokenizer.encode(text)]


def _turn_ids(turns, tokenizer):
    if tokenizer is None:
        raise ValueError(NO_TOKENIZER)
    return chat.encode_prompt(tokenizer, turns)


def _infilling_ids(parts, tokenizer):
    if set(parts) != {"prefix", "suffix"}:
        expected = "'token_ids' and 'padding_mask', or 'prefix' and 'suffix'"
        raise ValueError(f"A dict must hold {expected}. Received: {', '.join(map(repr, parts))}")
    if tokenizer is None:
        raise ValueError(NO_TOKENIZER)
    return infilling.encode_infilling(tokenizer, parts["prefix"], parts["suffix"])


def left_padded(prompts: list[list[int]], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """token_ids int32 (b, p) and is_token bool (b, p), padded on the left to a width that few batches differ in."""
    return padded(prompts, pad_token_id, round_up(max(map(len, prompts)), _WIDTH_MULTIPLE), side="left")
