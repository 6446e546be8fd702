"""Where a model's first weights come from: random numbers that are the same on every backend, or a checkpoint.

A weight is made with its final value. Zeros that a checkpoint then replaces would be a second copy of the model for a
while.
"""

import abc

import keras
import numpy as np
from keras import ops

from gemma_keras.random import generator


class KeyedNormal(keras.initializers.Initializer):
    """Normal numbers keyed by (seed, weight name), drawn on the host.

    Keras' own initializers give three different tensors on three backends for one seed.

    Args:
        seed: int, or None for zeros.
        name: the weight's name, e.g. "layers.0.q_proj".
        stddev: standard deviation.
    """

    def __init__(self, seed: int | None, name: str, stddev: float):
        self.seed = seed
        self.name = name
        self.stddev = stddev

    def __call__(self, shape, dtype=None):
        if self.seed is None or not self.stddev:
            return ops.zeros(shape, dtype=dtype)
        values = generator(self.seed, "weights", self.name).standard_normal(tuple(shape), dtype=np.float32)
        return ops.cast(ops.convert_to_tensor(values * np.float32(self.stddev)), dtype or "float32")

    def get_config(self):
        return {"seed": self.seed, "name": self.name, "stddev": self.stddev}


class FirstWeights(abc.ABC):
    """What every layer of a model asks for its initial weights."""

    @abc.abstractmethod
    def initializer(self, name: str, stddev: float) -> keras.initializers.Initializer:
        """The initializer of one weight.

        Args:
            name: e.g. "layers.0.q_proj"; all names are in `checkpoints/names.py`.
            stddev: of a random weight; 0 for one that starts at zero.
        """


class RandomWeights(FirstWeights):
    """Keyed by a seed and the weight's name; zeros with the seed None."""

    def __init__(self, seed: int | None):
        self.seed = seed

    def initializer(self, name: str, stddev: float) -> keras.initializers.Initializer:
        return KeyedNormal(self.seed, name, stddev)


class LoadedWeights(FirstWeights):
    """Out of a checkpoint, each read at the moment its variable is made.

    Args:
        stored: `checkpoints.weights.StoredWeights`.
    """

    def __init__(self, stored):
        self.stored = stored

    def initializer(self, name: str, stddev: float) -> keras.initializers.Initializer:
        return _Stored(self.stored, name)


class _Stored(keras.initializers.Initializer):
    def __init__(self, stored, name: str):
        self.stored = stored
        self.name = name

    def __call__(self, shape, dtype=None):
        # Cast while reading, so that neither the host nor the backend ever holds the weight in another dtype.
        values = self.stored.read(self.name, keras.backend.standardize_dtype(dtype))
        if tuple(values.shape) != tuple(shape):
            raise ValueError(
                f"{self.stored.origin}: weight {self.name!r}: expected shape {tuple(shape)}. Received: {values.shape}"
            )
        values = np.ascontiguousarray(values)  # drops what a transposed view looked at, before the backend copies
        return ops.convert_to_tensor(values)
