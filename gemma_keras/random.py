"""Random numbers that depend on what they are for, not on when they are drawn.

Every draw is keyed, for example by (seed, stage, step, prompt, sample), and comes from a counter-based generator on the
host. A resumed, re-batched or differently backed run therefore draws the same numbers. Those for sampling have 24 bits;
`sampling.py` says what that limits, and when equal numbers are equal tokens.
"""

import hashlib

import numpy as np


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """A Philox generator for (seed, *keys).

    Args:
        seed: the run's seed.
        keys: integers and strings that name the draw. Order and type matter.
    """
    text = repr((int(seed), *(key if isinstance(key, str) else int(key) for key in keys)))
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))


def uniforms(seed: int, *keys: int | str, shape: int | tuple[int, ...]) -> np.ndarray:
    """float32 numbers in [0, 1) of `shape` for (seed, *keys), multiples of 2 ** -24."""
    return generator(seed, *keys).random(shape, dtype=np.float32)
