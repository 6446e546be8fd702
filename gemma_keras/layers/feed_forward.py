"""GeGLU feed-forward."""

import keras

from gemma_keras.config import GemmaConfig
from gemma_keras.layers.projection import projection


class GemmaFeedForward(keras.layers.Layer):
    """`down(gelu(gate(x)) * up(x))` with the tanh approximation of GELU.

    Call: float (b, t, d) → float (b, t, d).

    Source: Shazeer 2020, arXiv:2002.05202, equation 6.
    """

    def __init__(self, config: GemmaConfig, index: int, seed: int | None = 0, **kwargs):
        super().__init__(**kwargs)
        width, inner, stem = config.hidden_dim, config.intermediate_dim, f"layers.{index}"
        self.gate_proj = projection(width, inner, f"{stem}.gate_proj", seed, self.dtype_policy)
        self.up_proj = projection(width, inner, f"{stem}.up_proj", seed, self.dtype_policy)
        self.down_proj = projection(inner, width, f"{stem}.down_proj", seed, self.dtype_policy)
        self.built = True

    def call(self, x):
        return self.down_proj(keras.activations.gelu(self.gate_proj(x), approximate=True) * self.up_proj(x))
