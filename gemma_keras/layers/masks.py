"""Who may attend to whom, from positions and segments alone."""

import dataclasses
from typing import Any

from keras import ops

from gemma_keras import backends
from gemma_keras.backends.reference import attention_mask
from gemma_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class RowTokens:
    """The tokens of rows that are read at once, as queries and as keys of each other.

    Args:
        positions, segments: int32 (b, t), as `attention_mask` takes them.
        window: of a local layer, or None.
        is_plain: as `backends.is_plain` says.
    """

    positions: Any
    segments: Any
    window: int | None = None
    is_plain: Any = False


def visible_keys(positions, segments, keys, windows):
    """What layers see, one a window: a mask bool (b, t, s), or `RowTokens` for rows that are read at once and are
    longer than `backends.DENSE_TOKENS`.

    Args:
        positions, segments: int32 (b, t), of the queries.
        keys: positions and segments of the keys, int32 (b, s); None where they are the queries' own tokens.
        windows: int, or None for a global layer.
    """
    # None where TensorFlow does not know it; a symbol where JAX exports for any length, which blocks cannot be cut by.
    time = positions.shape[1]
    is_long = time is None or (isinstance(time, int) and time > backends.DENSE_TOKENS)
    if keys is None and is_long:
        is_plain = backends.is_plain(segments)
        # A window as wide as the row hides nothing.
        windows = [None if window is None or (time is not None and window >= time) else window for window in windows]
        return [RowTokens(positions, segments, window, is_plain) for window in windows]
    key_positions, key_segments = (positions, segments) if keys is None else keys
    return [attention_mask(positions, segments, key_positions, key_segments, window) for window in windows]


def check_padding_mask(token_ids, padding_mask) -> None:
    """Raise where a mask has another shape than the ids, which backends would repeat to fit: one row's for all rows.

    Raises:
        InputError: says both shapes. Sizes that are not known yet fit any.
    """
    shapes = tuple(token_ids.shape), tuple(padding_mask.shape)
    sizes = zip(*shapes, strict=False)
    if len(shapes[0]) != len(shapes[1]) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes):
        raise InputError(
            f"`padding_mask` must have the shape of `token_ids`, {shapes[0]}. Received: padding_mask of {shapes[1]}"
        )


def positions_from_padding(padding_mask):
    """Position of each token among the real tokens of its row: int32 (b, t); padding gets 0.

    Args:
        padding_mask: bool (b, t), True is a real token, padding on either side.
    """
    counts = ops.cumsum(ops.cast(padding_mask, "int32"), axis=1)
    return ops.where(padding_mask, counts - 1, 0)
