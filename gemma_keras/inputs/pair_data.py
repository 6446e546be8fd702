"""Preferences that a user hands to a reward model's `fit`, as padded arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemma_keras.inputs import fit_data
from gemma_keras.inputs.padding import padded, training_width
from gemma_keras.text import chat
from gemma_keras.text.marked_text import texts_in, warn_of_marks


def prepare(data: Any, tokenizer: Any, max_length: int, pad_token_id: int, truncate: bool = False):
    """Arrays for `keras.Model.fit`.

    Args:
        data: rows `{"prompt", "chosen", "rejected"}`, a dict of lists of these, or a data set of them. The prompt is
            the text of a user turn or a conversation, a response a text or a list of one message; without "prompt"
            both responses are conversations that differ in their last turn. "margin", float: how much better the
            chosen one is.
        tokenizer: `GemmaTokenizer`.
        max_length: tokens a row at most. pad_token_id: fills rows up on the right.
        truncate: cut longer rows at their end instead of refusing them.

    Returns:
        features: {"token_ids": int32 (b, 2, t), "padding_mask": bool (b, 2, t)}, the chosen response first.
        margins: float32 (b,), 0 where none is given. batch_size: int or None, what a data set was batched with.

    Raises:
        ValueError: no rows, rows of another kind, or too long; no tokenizer.
    """
    if tokenizer is None:
        raise ValueError("Text needs a tokenizer and this model has none. Set `model.tokenizer`")
    rows, batch_size = fit_data.rows_of(data)
    if not rows:
        raise ValueError("The training data is empty: expected at least one preference")
    warn_of_marks(texts_in(rows))
    sequences, margins = [], []
    for number, row in enumerate(rows):
        for ids in _pair(tokenizer, row, number):
            if len(ids) > max_length and not truncate:
                raise ValueError(
                    f"Example {number} has {len(ids)} tokens, more than max_length={max_length}. Raise it, cut the "
                    "text, or pass truncate=True"
                )
            sequences.append(ids[:max_length])
        margins.append(float(row.get("margin") or 0.0))
    width = training_width(sequences, max_length)
    token_ids, padding_mask = (array.reshape(-1, 2, width) for array in padded(sequences, pad_token_id, width))
    return {"token_ids": token_ids, "padding_mask": padding_mask}, np.array(margins, np.float32), batch_size


def _pair(tokenizer: Any, row: Any, number: int) -> list[list[int]]:
    if not (isinstance(row, Mapping) and "chosen" in row and "rejected" in row):
        raise ValueError(
            f"Example {number} must be a dict with 'prompt', 'chosen' and 'rejected'. Received: {row!r:.200}"
        )
    prompt, responses = row.get("prompt"), [row["chosen"], row["rejected"]]
    if prompt is None:
        if not all(fit_data.is_conversation(each) and len(each) > 1 for each in responses):
            raise ValueError(
                f"Example {number} has no 'prompt': expected it, or conversations of several turns in 'chosen' and "
                f"'rejected'. Received: {row!r:.200}"
            )
        if responses[0][:-1] != responses[1][:-1]:
            raise ValueError(f"Example {number}: 'chosen' and 'rejected' must differ in their last turn alone")
        prompt, responses = responses[0][:-1], [each[-1:] for each in responses]
    try:
        start = chat.encode_prompt(tokenizer, prompt)
        return [start + chat.encode_response(tokenizer, fit_data.response_text(each)) for each in responses]
    except (TypeError, ValueError) as error:
        raise ValueError(f"Example {number}: {error}") from error
