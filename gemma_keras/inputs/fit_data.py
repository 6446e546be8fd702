"""Whatever a user hands to `fit`, as padded arrays."""

import itertools
from collections.abc import Mapping

import numpy as np

from gemma_keras.inputs.padding import padded, round_up, training_width
from gemma_keras.inputs.triples import elements_of, is_data_set, is_triple, joined
from gemma_keras.text import chat
from gemma_keras.text.chat import EncodedExample
from gemma_keras.text.marked_text import texts_in, warn_of_marks

_LENGTH_MULTIPLE = 16  # fewer distinct shapes, so fewer compilations
_KERAS_BATCH_SIZE = 32  # Keras' default
_PAIR_COLUMNS = (("prompt", "completion"), ("prompts", "responses"), ("prompt", "response"))
_BATCHED_COLUMNS = ("prompt", "prompts", "text", "messages", "token_ids")


def prepare(
    data, tokenizer, max_length: int, pad_token_id: int, vocabulary_size: int | None = None, truncate: bool = False,
    most_steps: int | None = None, asked_batch_size: int | None = None, marks: tuple[bool, bool] = (True, True),
):  # fmt: skip
    """Arrays for `keras.Model.fit`.

    Args:
        data: any kind that `GemmaCausalLM.fit` names. A data set or loader is read once, from its start to its end, and
            held in memory.
        tokenizer: `GemmaTokenizer`, or None where data holds ids.
        max_length: tokens a row at most; arrays are taken as wide as they are.
        pad_token_id: fills rows up on the right.
        vocabulary_size: ids must lie below it; None does not check.
        truncate: cut longer rows at their end instead of refusing them.
        most_steps: of training; of a data set no more is read than these use. None reads all, which must have an end.
        asked_batch_size: rows a step; default those of the data set's batches.
        marks: whether a text, as opposed to turns, gets bos, and eos.

    Returns:
        features: {"token_ids": int32 (b, t), "padding_mask": bool (b, t)}.
        targets: int32 (b, t), the token after each position.
        weights: float32 (b, t), 1 where that token bears loss.
        batch_size: int or None, what the data set itself was batched with.

    Raises:
        ValueError: unknown kind, a row too long or without loss, an id outside the vocabulary, text without a
            tokenizer.
    """
    if isinstance(data, np.ndarray) and np.issubdtype(data.dtype, np.integer):
        data = {"token_ids": data}
    batch_size = None
    if is_data_set(data):
        data = elements_of(data, may_be_endless=most_steps is not None)
        first = next(data, None)
        if most_steps is not None:
            rows = _rows_in(first)
            used = most_steps * (asked_batch_size or rows or _KERAS_BATCH_SIZE)
            data = itertools.islice(data, -(-used // (rows or 1)) - 1)
        data = itertools.chain(() if first is None else [first], data)
        if is_triple(first):
            features, targets, weights, batch_size = joined(data, pad_token_id)
            check_vocabulary(features["token_ids"], vocabulary_size)
            return features, targets, weights, batch_size
    if not (isinstance(data, dict) and "token_ids" in data):
        data, batch_size = _padded_rows(data, tokenizer, max_length, pad_token_id, truncate, marks)
    features, targets, weights = _from_arrays(data)
    check_vocabulary(features["token_ids"], vocabulary_size)
    if not weights.any():
        raise ValueError("No token bears loss: 'is_target' and 'padding_mask' leave none, or rows are one token long")
    return features, targets, weights, batch_size


def loss_positions(targets, weights):
    """The loss-bearing positions alone, so that the head need not look at the others.

    Args:
        targets: int (b, t). weights: float (b, t), 0 where the position bears no loss.

    Returns:
        positions int32 (b, m), targets (b, m), weights (b, m), where m is the largest number of such positions in a
        row, rounded up; rows with fewer are filled up with positions of weight 0. Where m is t, positions is None and
        the others are returned as they are.
    """
    width = int((weights != 0).sum(axis=1).max())
    width = min(round_up(width, _LENGTH_MULTIPLE), weights.shape[1])
    if width == weights.shape[1]:
        return None, targets, weights
    positions = np.argsort(weights == 0, axis=1, kind="stable")[:, :width].astype(np.int32)
    return positions, np.take_along_axis(targets, positions, axis=1), np.take_along_axis(weights, positions, axis=1)


def encoded_rows(
    data, tokenizer, max_length: int, truncate: bool = False, marks: tuple[bool, bool] = (True, True)
) -> list[EncodedExample]:
    """Every example of any kind of data but arrays, encoded; one warning where control pieces are written out in text.

    Args and errors: as `prepare`.
    """
    return _encoded_rows(data, tokenizer, max_length, truncate, marks)[0]


def _encoded_rows(data, tokenizer, max_length, truncate, marks):
    rows, batch_size = rows_of(data)
    if not rows:
        raise ValueError("The training data is empty: expected at least one example")
    warn_of_marks(texts_in(rows))
    examples = [_encode(row, tokenizer, number, marks) for number, row in enumerate(rows)]
    for number, example in enumerate(examples):
        if len(example.token_ids) > max_length:
            if not truncate:
                raise ValueError(
                    f"Example {number} has {len(example.token_ids)} tokens, more than max_length={max_length}. Raise "
                    "it, cut the text, or pass truncate=True"
                )
            example = EncodedExample(example.token_ids[:max_length], example.is_target[:max_length])
            examples[number] = example
        if not any(example.is_target[1:]):
            cut = f" in its first {max_length} tokens" if truncate else ""
            raise ValueError(
                f"Example {number} bears no loss: nothing in it{cut} is to be predicted. Received: "
                f"{rows[number]!r:.200}"
            )
    return examples, batch_size


def _padded_rows(data, tokenizer, max_length, pad_token_id, truncate, marks):
    """Arrays "token_ids", "padding_mask", "is_target" of a sequence of examples, and the batch size it came in."""
    examples, batch_size = _encoded_rows(data, tokenizer, max_length, truncate, marks)
    width = training_width([example.token_ids for example in examples], max_length)
    token_ids, padding_mask = padded([example.token_ids for example in examples], pad_token_id, width)
    is_target = padded([example.is_target for example in examples], False, width)[0].astype(bool)
    return {"token_ids": token_ids, "padding_mask": padding_mask, "is_target": is_target}, batch_size


def _from_arrays(arrays):
    token_ids = np.asarray(arrays["token_ids"])
    if token_ids.ndim != 2 or not np.issubdtype(token_ids.dtype, np.integer):
        raise ValueError(
            f"'token_ids' must be integers (b, t). Received: shape {token_ids.shape}, dtype {token_ids.dtype}"
        )
    padding_mask = np.asarray(arrays.get("padding_mask", np.ones(token_ids.shape)), bool)
    is_target = np.asarray(arrays.get("is_target", padding_mask), bool)
    if padding_mask.shape != token_ids.shape or is_target.shape != token_ids.shape:
        shapes = (token_ids.shape, padding_mask.shape, is_target.shape)
        raise ValueError(f"'token_ids', 'padding_mask' and 'is_target' must share one shape (b, t). Received: {shapes}")
    token_ids = token_ids.astype(np.int32)
    # A row's first token is predicted by nothing: what stands before it is padding.
    predicted = is_target[:, 1:] & padding_mask[:, 1:] & padding_mask[:, :-1]
    targets = np.concatenate([token_ids[:, 1:], np.zeros_like(token_ids[:, :1])], axis=1)
    weights = np.concatenate([predicted, np.zeros((len(token_ids), 1), bool)], axis=1).astype(np.float32)
    return {"token_ids": token_ids, "padding_mask": padding_mask}, targets, weights


def check_vocabulary(token_ids, vocabulary_size: int | None) -> None:
    """Raise ValueError where an id is no row of the embedding."""
    if vocabulary_size is None or not token_ids.size:
        return
    # JAX and TensorFlow read rows outside a table without a word.
    low, high = int(token_ids.min()), int(token_ids.max())
    if low < 0 or high >= vocabulary_size:
        raise ValueError(
            f"Token ids must be from 0 to {vocabulary_size - 1}, the model's vocabulary. Received: "
            f"{low if low < 0 else high}"
        )


def rows_of(data) -> tuple[list, int | None]:
    """A flat list of examples, and the batch size of a data set that came in batches."""
    if isinstance(data, str):
        raise ValueError(f"`x` must be a list of examples, not one string. Received: {data!r:.80}")
    if isinstance(data, Mapping):
        return _rows_of_columns(data), None
    if isinstance(data, np.ndarray):
        data = data.tolist()
    if isinstance(data, (list, tuple)):
        return [_plain(row) for row in data], None
    # datasets.Dataset, tf.data.Dataset, DataLoader, generators: one pass over them, batches taken apart again.
    rows, batch_size = [], None
    for element in elements_of(data):
        batch = _batch_rows(_plain(element))
        if batch is None:
            rows.append(_plain(element))
        else:
            batch_size = batch_size or len(batch)
            rows.extend(batch)
    return rows, batch_size


def _rows_in(element) -> int | None:
    """How many examples a batch of a data set holds; None where an element is one example."""
    if is_triple(element):
        token_ids = np.asarray(element[0]["token_ids"])
        return len(token_ids) if token_ids.ndim == 2 else None
    batch = _batch_rows(_plain(element))
    return None if batch is None else len(batch) or None


def _plain(value):
    """Tensors, bytes and numpy values as plain Python ones."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return _plain(np.asarray(value).tolist())


def _batch_rows(element):
    """The examples of a batch, or None where the element is one example."""
    if isinstance(element, dict):
        columns = [value for key, value in element.items() if key in _BATCHED_COLUMNS]
        # One example holds a string, a conversation, or ids; a batch holds a list of those.
        one = not columns or not isinstance(columns[0], list) or is_conversation(columns[0])
        one = one or ("token_ids" in element and not isinstance(element["token_ids"][0], list))
        return None if one else _rows_of_columns(element)
    if not isinstance(element, list):
        return None
    if is_conversation(element):
        if isinstance(element[0]["role"], str):
            return None
        # PyTorch's default collation turns a batch of conversations inside out.
        return [[{key: turn[key][row] for key in turn} for turn in element] for row in range(len(element[0]["role"]))]
    return element


def is_conversation(value) -> bool:
    """Whether a value is a list of `{"role", ...}`."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _rows_of_columns(columns):
    columns = {key: [_plain(value) for value in values] for key, values in columns.items()}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Columns must have the same number of rows. Received: {lengths}")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _encode(row, tokenizer, number, marks) -> EncodedExample:
    if isinstance(row, dict) and "token_ids" in row:
        return _encoded_ids(row, number)
    if tokenizer is None:
        raise ValueError(
            "Text needs a tokenizer and this model has none. Pass a dict with 'token_ids' and 'padding_mask', or set "
            "`model.tokenizer`"
        )
    try:
        if isinstance(row, str):
            return _encoded_text(tokenizer, row, marks)
        if is_conversation(row):
            return chat.encode_conversation(tokenizer, row)
        if isinstance(row, dict):
            for prompt, response in _PAIR_COLUMNS:
                if prompt in row and response in row:
                    return chat.encode_pair(tokenizer, row[prompt], response_text(row[response]))
            if "messages" in row:
                return chat.encode_conversation(tokenizer, row["messages"])
            if "text" in row:
                return _encoded_text(tokenizer, row["text"], marks)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Example {number}: {error}") from error
    raise ValueError(
        f"Example {number} must be a string, a list of {{'role', 'content'}}, or a dict with 'prompt' and "
        f"'completion', 'prompts' and 'responses', 'messages', 'text' or 'token_ids'. Received: {row!r:.200}"
    )


def _encoded_text(tokenizer, text, marks) -> EncodedExample:
    example = chat.encode_text(tokenizer, text)
    kept = slice(0 if marks[0] else 1, None if marks[1] else -1)
    return EncodedExample(example.token_ids[kept], example.is_target[kept])


def response_text(response):
    """The text of a response; TRL's conversational columns hold it as a list of one message."""
    if is_conversation(response) and len(response) == 1:
        response = response[0]["content"]
    if not isinstance(response, str):
        raise TypeError(f"a response must be a string. Received: {response!r:.80}")
    return response


def _encoded_ids(row, number) -> EncodedExample:
    token_ids = [int(i) for i in row["token_ids"]]
    real = row.get("padding_mask", [True] * len(token_ids))
    is_target = row.get("is_target", [True] * len(token_ids))
    if not len(token_ids) == len(real) == len(is_target):
        lengths = (len(token_ids), len(real), len(is_target))
        raise ValueError(
            f"Example {number}: 'token_ids', 'padding_mask' and 'is_target' must have one length. Received: {lengths}"
        )
    kept = [i for i, is_real in enumerate(real) if is_real]
    return EncodedExample([token_ids[i] for i in kept], [bool(is_target[i]) for i in kept])
