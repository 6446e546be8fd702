"""Rotary position embedding, half-split."""

import numpy as np
from keras import ops


def rotary_tables(positions, head_dim: int, theta: float, scale: float = 1.0):
    """Cosines and sines of every position.

    Args:
        positions: int (b, t).
        head_dim: h, even.
        theta: base; angle i is `position / scale * theta ** (-2 i / h)`.
        scale: positions are divided by it.

    Returns:
        cos, sin: float32 (b, t, 1, h / 2).

    Source: Su et al. 2021, arXiv:2104.09864, equation 34, with the two halves of a head as the pairs.
    """
    frequencies = (1.0 / (theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)) / scale).astype(np.float32)
    angles = ops.cast(positions, "float32")[:, :, None, None] * ops.convert_to_tensor(frequencies)
    return ops.cos(angles), ops.sin(angles)
