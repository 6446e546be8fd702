"""The one kind of linear map in Gemma: two-dimensional kernel, no bias."""

import keras

from gemma_keras import backends
from gemma_keras.initializers import KeyedNormal


class Projection(keras.layers.Dense):
    """`x @ kernel`.

    A two-dimensional kernel is what LoRA, quantization and torch want: `EinsumDense` with a three-dimensional one copies it at every
    forward pass on torch.

    Args:
        inputs, outputs: sizes.
        full_name: e.g. "layers.0.q_proj"; keys the initial weights, of std 1 / sqrt(inputs).
        seed: of the initial weights, None for zeros.

    Call: float (..., inputs) → float (..., outputs).
    """

    def __init__(self, inputs: int, outputs: int, full_name: str, seed: int | None, dtype=None):
        initializer = KeyedNormal(seed, full_name, inputs**-0.5)
        super().__init__(outputs, use_bias=False, kernel_initializer=initializer, dtype=dtype, name=full_name.rsplit(".", 1)[-1])
        self.build((None, inputs))

    def call(self, x):
        return backends.linear(x, self.kernel)
