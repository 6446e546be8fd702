"""The one kind of linear map in Gemma: two-dimensional kernel, no bias."""

import keras

from gemma_keras.initializers import KeyedNormal


def projection(inputs: int, outputs: int, name: str, seed: int | None, dtype) -> keras.layers.Dense:
    """A built Dense (inputs, outputs) without bias, its initial weights of std 1 / sqrt(inputs).

    A fused two-dimensional kernel is what LoRA, quantization and torch want: `EinsumDense` with a three-dimensional one copies it at every
    forward pass on torch.

    Args:
        name: full name, e.g. "layers.0.q_proj"; keys the initial weights.
    """
    layer = keras.layers.Dense(
        outputs, use_bias=False, kernel_initializer=KeyedNormal(seed, name, inputs**-0.5), dtype=dtype, name=name.rsplit(".", 1)[-1]
    )
    layer.build((None, inputs))
    return layer
