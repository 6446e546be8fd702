"""Whatever a user hands to `fit`, as padded arrays."""

import numpy as np

from gemma_keras import chat
from gemma_keras.chat import EncodedExample

_LENGTH_MULTIPLE = 16  # fewer distinct shapes, so fewer compilations


def prepare(data, tokenizer, max_length: int, pad_token_id: int):
    """Arrays for `keras.Model.fit`.

    Args:
        data: any kind that `GemmaCausalLM.fit` names.
        tokenizer: `GemmaTokenizer`, or None where data holds ids.
        max_length: tokens a row at most.
        pad_token_id: fills rows up on the right.

    Returns:
        features: {"token_ids": int32 (b, t), "padding_mask": bool (b, t)}.
        targets: int32 (b, t), the token after each position.
        weights: float32 (b, t), 1 where that token bears loss.
        batch_size: int or None, what the data set itself was batched with.

    Raises:
        ValueError: unknown kind, a row too long or without loss, text without a tokenizer.
    """
    if isinstance(data, dict) and "token_ids" in data:
        return (*_from_arrays(data), None)
    rows, batch_size = _rows(data)
    if not rows:
        raise ValueError("The training data is empty: expected at least one example")
    if tokenizer is None:
        raise ValueError("Text needs a tokenizer and this model has none. Pass a dict with 'token_ids' and 'padding_mask' instead")
    examples = [_encode(row, tokenizer) for row in rows]
    for number, example in enumerate(examples):
        if len(example.token_ids) > max_length:
            raise ValueError(f"Example {number} has {len(example.token_ids)} tokens, more than max_length={max_length}. Raise it or cut the text")
        if not any(example.is_target[1:]):
            raise ValueError(f"Example {number} bears no loss: its response is empty. Received: {rows[number]!r:.200}")
    longest = max(len(example.token_ids) for example in examples)
    width = min(-(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, max_length)
    token_ids = np.full((len(examples), width), pad_token_id, np.int32)
    is_target = np.zeros((len(examples), width), bool)
    padding_mask = np.zeros((len(examples), width), bool)
    for row, example in enumerate(examples):
        length = len(example.token_ids)
        token_ids[row, :length] = example.token_ids
        is_target[row, :length] = example.is_target
        padding_mask[row, :length] = True
    arrays = {"token_ids": token_ids, "padding_mask": padding_mask, "is_target": is_target}
    return (*_from_arrays(arrays), batch_size)


def _from_arrays(arrays):
    token_ids = np.asarray(arrays["token_ids"], np.int32)
    padding_mask = np.asarray(arrays.get("padding_mask", np.ones(token_ids.shape)), bool)
    is_target = np.asarray(arrays.get("is_target", padding_mask), bool) & padding_mask
    if token_ids.ndim != 2 or padding_mask.shape != token_ids.shape or is_target.shape != token_ids.shape:
        shapes = (token_ids.shape, padding_mask.shape, is_target.shape)
        raise ValueError(f"'token_ids', 'padding_mask' and 'is_target' must share one shape (b, t). Received: {shapes}")
    # A row's first token is predicted by nothing; its predecessor in the array is padding or the row's end.
    predicted = is_target[:, 1:] & padding_mask[:, :-1]
    targets = np.concatenate([token_ids[:, 1:], np.zeros_like(token_ids[:, :1])], axis=1)
    weights = np.concatenate([predicted, np.zeros_like(predicted[:, :1])], axis=1).astype(np.float32)
    return {"token_ids": token_ids, "padding_mask": padding_mask}, targets, weights


def _rows(data):
    """A flat list of examples, and the batch size of a data set that came in batches."""
    if isinstance(data, str):
        raise ValueError(f"`x` must be a list of examples, not one string. Received: {data!r:.80}")
    if isinstance(data, dict):
        return _rows_of_columns(data), None
    if isinstance(data, np.ndarray):
        data = data.tolist()
    if isinstance(data, (list, tuple)):
        return [_plain(row) for row in data], None
    # datasets.Dataset, tf.data.Dataset, DataLoader, generators: one pass over them, batches taken apart again.
    rows, batch_size = [], None
    for element in data:
        element = _plain(element)
        if _is_batch(element):
            parts = _rows_of_columns(element) if isinstance(element, dict) else list(element)
            batch_size = batch_size or len(parts)
            rows.extend(parts)
        else:
            rows.append(element)
    return rows, batch_size


def _plain(value):
    """Tensors, bytes and numpy values as plain Python ones."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return _plain(np.asarray(value).tolist())


def _is_batch(element):
    if isinstance(element, dict):
        columns = [value for key, value in element.items() if key in ("prompt", "prompts", "text", "messages")]
        return bool(columns) and isinstance(columns[0], list) and not _is_conversation(columns[0])
    return isinstance(element, list) and not _is_conversation(element)


def _is_conversation(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _rows_of_columns(columns):
    columns = {key: _plain(values) for key, values in columns.items()}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Columns must have the same number of rows. Received: {lengths}")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _encode(row, tokenizer) -> EncodedExample:
    if isinstance(row, str):
        return chat.encode_text(tokenizer, row)
    if _is_conversation(row):
        return chat.encode_conversation(tokenizer, row)
    if isinstance(row, dict):
        for prompt, response in (("prompt", "completion"), ("prompts", "responses"), ("prompt", "response")):
            if prompt in row and response in row:
                return chat.encode_pair(tokenizer, row[prompt], row[response])
        if "messages" in row:
            return chat.encode_conversation(tokenizer, row["messages"])
        if "text" in row:
            return chat.encode_text(tokenizer, row["text"])
    raise ValueError(
        "An example must be a string, a list of {'role', 'content'}, or a dict with 'prompt' and 'completion', 'prompts' and 'responses', "
        f"'messages' or 'text'. Received: {row!r:.200}"
    )
