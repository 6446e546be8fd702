"""Data sets of prepared arrays: Keras' (x, y, sample_weight), one example or one batch an element."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np


def is_data_set(data: Any) -> bool:
    """Whether `data` is read element by element: neither text, nor columns, nor a list, nor an array."""
    return not isinstance(data, (str, Mapping, np.ndarray, list, tuple))


def elements_of(data: Any, may_be_endless: bool = False) -> Iterator[Any]:
    """The elements of a data set.

    Raises:
        ValueError: it is none, or it has no end where that is not allowed.
    """
    try:
        elements = iter(data)
    except TypeError as error:
        raise ValueError(
            f"`x` must be a list, a dict of columns, arrays, or a data set. Received: {type(data).__name__}"
        ) from error
    if not may_be_endless:
        _refuse_endless(data)
    return elements


def _refuse_endless(data: Any) -> None:
    try:
        len(data)
    except TypeError as error:
        # What `len` of a repeated tf.data.Dataset says; other data sets do not know their length.
        if "infinite" in str(error):
            raise ValueError(
                "The data set has no end. Leave out `.repeat()` and pass `epochs`, or pass `steps_per_epoch`"
            ) from error


def is_triple(element: Any) -> bool:
    """Whether an element is (x, y) or (x, y, sample_weight) with x a dict that holds "token_ids"."""
    return (
        isinstance(element, (tuple, list))
        and len(element) in (2, 3)
        and isinstance(element[0], Mapping)
        and "token_ids" in element[0]
    )


def checked(x: Mapping[str, Any], y: Any, sample_weight: Any = None):
    """One batch as arrays of one shape.

    Args:
        x: {"token_ids": int (b, t), "padding_mask": bool (b, t), default all}. y: int (b, t), the token after each
            position. sample_weight: float (b, t) >= 0, default 1 where position and target are no padding.

    Returns:
        features {"token_ids": int32, "padding_mask": bool}, targets int32, weights float32; all (b, t).

    Raises:
        ValueError: other shapes or kinds, or no weight above 0.
    """
    token_ids, targets = np.asarray(x["token_ids"]), np.asarray(y)
    padding_mask = np.asarray(x.get("padding_mask", np.ones(token_ids.shape)), bool)
    for name, array in (("token_ids", token_ids), ("y", targets)):
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name!r} must be integers (b, t). Received: shape {array.shape}, dtype {array.dtype}")
    if sample_weight is None:
        following = np.concatenate([padding_mask[:, 1:], np.ones_like(padding_mask[:, :1])], axis=1)
        sample_weight = padding_mask & following
    weights = np.asarray(sample_weight, np.float32)
    shapes = [array.shape for array in (token_ids, padding_mask, targets, weights)]
    if len(set(shapes)) != 1:
        raise ValueError(
            f"'token_ids', 'padding_mask', `y` and `sample_weight` must share one shape (b, t). Received: {shapes}"
        )
    if not (weights >= 0).all() or not weights.any():
        raise ValueError("`sample_weight` must be 0 or more, and more than 0 where a token bears loss")
    features = {"token_ids": token_ids.astype(np.int32), "padding_mask": padding_mask}
    return features, targets.astype(np.int32), weights


def joined(elements: Iterable[Any], pad_token_id: int):
    """All batches of a data set as one: features, targets, weights as `checked`, and the batch size or None.

    Batches of other widths are filled up on the right.
    """
    batches, batch_size = [], None
    for x, *rest in elements:
        x = {key: np.asarray(value) for key, value in x.items()}
        rest = [np.asarray(value) for value in rest]
        if x["token_ids"].ndim == 1:
            x, rest = {key: value[None] for key, value in x.items()}, [value[None] for value in rest]
        elif batch_size is None:
            batch_size = len(x["token_ids"])
        batches.append(checked(x, *rest))
    width = max(len(weights[0]) for _, _, weights in batches)

    def join(arrays, fill):
        return np.concatenate(
            [np.pad(each, [(0, 0), (0, width - each.shape[1])], constant_values=fill) for each in arrays]
        )

    features = {
        "token_ids": join([x["token_ids"] for x, _, _ in batches], pad_token_id),
        "padding_mask": join([x["padding_mask"] for x, _, _ in batches], False),
    }
    targets, weights = join([y for _, y, _ in batches], pad_token_id), join([w for _, _, w in batches], 0.0)
    return features, targets, weights, batch_size
