"""The one kind of linear map in Gemma: two-dimensional kernel, no bias."""

import keras

from gemma_keras.initializers import KeyedNormal


def projection(inputs: int, outputs: int, name: str, seed: int | None, dtype, depth: int | None = None) -> keras.layers.Dense:
    """A built Dense (inputs, outputs) without bias.

    A fused two-dimensional kernel is what LoRA, quantization and torch want: `EinsumDense` with a three-dimensional one copies it at every
    forward pass on torch.

    Args:
        name: full name, e.g. "layers.0.q_proj"; keys the initial weights.
        depth: number of layers, for maps that write to the residual stream: their start is scaled by 1 / sqrt(2 depth).
    """
    stddev = inputs**-0.5 / ((2 * depth) ** 0.5 if depth else 1.0)
    layer = keras.layers.Dense(
        outputs, use_bias=False, kernel_initializer=KeyedNormal(seed, name, stddev), dtype=dtype, name=name.rsplit(".", 1)[-1]
    )
    layer.build((None, inputs))
    return layer
