"""Rotary position embedding, half-split."""

import numpy as np
from keras import ops


def rotary_tables(positions, head_dim: int, theta: float, scale: float = 1.0, dtype="float32"):
    """Cosines and sines of every position, as `backends.rotate` multiplies with them.

    Args:
        positions: int (b, t).
        head_dim: h, even.
        theta: base; angle i is `position / scale * theta ** (-2 i / h)`.
        scale: positions are divided by it.
        dtype: of the tables, rounded at the end.

    Returns:
        cos, sin: (b, t, 1, h), number i and number i + h / 2 being of angle i; the first half of the sines is negative.

    Source: Su et al. 2021, arXiv:2104.09864, equation 34, with the two halves of a head as the pairs.
    """
    frequencies = (1.0 / (theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)) / scale).astype(np.float32)
    angles = ops.cast(positions, "float32")[:, :, None, None] * ops.convert_to_tensor(frequencies)
    cos, sin = ops.cast(ops.cos(angles), dtype), ops.cast(ops.sin(angles), dtype)
    # Both halves, once for all heads of all layers.
    return ops.concatenate([cos, cos], axis=-1), ops.concatenate([-sin, sin], axis=-1)
