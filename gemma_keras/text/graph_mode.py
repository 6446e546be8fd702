"""Python that is called while TensorFlow builds a graph, as in `tf.data.Dataset.map(tokenizer)`: run there by
`tf.numpy_function`, whichever backend computes the model."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def is_symbolic(value: Any) -> bool:
    """Whether a value, or one of a mapping's, is a tensor of a graph that is being built."""
    tf = _tensorflow()
    values = value.values() if isinstance(value, Mapping) else [value]
    return tf is not None and any(tf.is_symbolic_tensor(each) for each in values)


def tokenize(encode: Callable[[str], list[int]], texts: Any) -> Any:
    """Ids of a symbolic text () as int32 (t,), of texts (b,) as a ragged tensor (b, None)."""
    tf = _tensorflow()
    is_single = texts.shape.rank == 0

    def run(array: Any) -> tuple[np.ndarray, np.ndarray]:
        rows = [encode(each) for each in _plain(np.reshape(array, -1))]
        return np.array([i for row in rows for i in row], np.int32), np.array([len(row) for row in rows], np.int64)

    ids, lengths = tf.numpy_function(run, [texts], [tf.int32, tf.int64])
    ids.set_shape([None])
    lengths.set_shape([None])
    return ids if is_single else tf.RaggedTensor.from_row_lengths(ids, lengths)


def preprocess(prepare: Callable[[Any], Any], x: Any, length: int) -> Any:
    """What a preprocessor makes of a symbolic text or mapping of texts, each () or (b,).

    Args:
        prepare: from a list of texts or of dicts to x, y, sample_weight, see `GemmaCausalLMPreprocessor`.
        length: t.

    Returns:
        ({"token_ids", "padding_mask"}, y, sample_weight), tensors (t,) or (b, t).
    """
    tf = _tensorflow()
    names = list(x) if isinstance(x, Mapping) else None
    tensors = [x] if names is None else [x[name] for name in names]
    rank = tensors[0].shape.rank

    def run(*arrays: Any) -> tuple[np.ndarray, ...]:
        columns = [_plain(np.reshape(array, -1)) for array in arrays]
        rows = (
            columns[0] if names is None else [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        )
        features, targets, weights = prepare(rows)
        found = (features["token_ids"], features["padding_mask"], targets, weights)
        return tuple(each[0] for each in found) if rank == 0 else found

    found = tf.numpy_function(run, tensors, [tf.int32, tf.bool, tf.int32, tf.float32])
    for each in found:
        each.set_shape([length] if rank == 0 else [None, length])
    return {"token_ids": found[0], "padding_mask": found[1]}, found[2], found[3]


def _tensorflow() -> Any:
    """The module where it has been loaded, as it has where there are tensors of its graphs; else None."""
    return sys.modules.get("tensorflow")


def _plain(array: Any) -> list[str]:
    return [each.decode("utf-8") if isinstance(each, bytes) else str(each) for each in array.tolist()]
