"""What a response is charged for its length."""

import numpy as np
from numpy.typing import ArrayLike

from gemma_keras.shapes import Array, Float


def soft_overlong_penalty(lengths: ArrayLike, most_tokens: int, over_tokens: int) -> Float[Array, "n"]:
    """A penalty that grows from 0 to 1 over the last tokens that a response may have.

    A response that is cut at the limit has all of it, whatever it said; one that comes near is told so before.

    Args:
        lengths: int (n,). Tokens of each response, its stop token included.
        most_tokens: int >= 1. Tokens that a response may have, L_max.
        over_tokens: int in [1, most_tokens]. The penalty grows over so many, L_cache.

    Returns:
        float64 (n,) in [0, 1], to be subtracted from rewards: 0 up to `most_tokens - over_tokens`, 1 at `most_tokens`.

    Source: Yu et al. 2025 (DAPO), arXiv:2503.14476, equation 13.
    """
    over = np.asarray(lengths, np.float64) - (most_tokens - over_tokens)
    return np.clip(over / over_tokens, 0, 1)
