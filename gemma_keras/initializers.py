"""Initial weights that are the same numbers on every backend."""

import keras
import numpy as np
from keras import ops

from gemma_keras.random import generator


class KeyedNormal(keras.initializers.Initializer):
    """Normal numbers keyed by (seed, weight name), drawn on the host.

    Keras' own initializers give three different tensors on three backends for one seed.

    Args:
        seed: int, or None for zeros: the cheap start of a model whose weights are loaded next.
        name: the weight's name, e.g. "layers.0.q_proj".
        stddev: standard deviation.
    """

    def __init__(self, seed: int | None, name: str, stddev: float):
        self.seed = seed
        self.name = name
        self.stddev = stddev

    def __call__(self, shape, dtype=None):
        if self.seed is None:
            return ops.zeros(shape, dtype=dtype)
        values = generator(self.seed, "weights", self.name).standard_normal(tuple(shape), dtype=np.float32)
        return ops.cast(ops.convert_to_tensor(values * np.float32(self.stddev)), dtype or "float32")

    def get_config(self):
        return {"seed": self.seed, "name": self.name, "stddev": self.stddev}
