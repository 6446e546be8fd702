"""GeGLU feed-forward."""

import keras

from gemma_keras import backends
from gemma_keras.config import GemmaConfig
from gemma_keras.initializers import FirstWeights
from gemma_keras.layers.direct_call import project
from gemma_keras.layers.projection import Projection


class GemmaFeedForward(keras.layers.Layer):
    """`down(gelu(gate(x)) * up(x))` with the tanh approximation of GELU.

    Call: float (b, t, d) → float (b, t, d); `dropout_keys` as `Projection`.

    Source: Shazeer 2020, arXiv:2002.05202, equation 6.
    """

    def __init__(self, config: GemmaConfig, index: int, weights: FirstWeights, **kwargs):
        super().__init__(**kwargs)
        width, inner, stem = config.hidden_dim, config.intermediate_dim, f"layers.{index}"
        self.gate_proj = Projection(width, inner, f"{stem}.gate_proj", weights, self.dtype_policy)
        self.up_proj = Projection(width, inner, f"{stem}.up_proj", weights, self.dtype_policy)
        self.down_proj = Projection(inner, width, f"{stem}.down_proj", weights, self.dtype_policy)
        self.built = True

    def call(self, x, dropout_keys=None):
        gate, up = project(self.gate_proj, x, dropout_keys), project(self.up_proj, x, dropout_keys)
        return project(self.down_proj, backends.gated_gelu(gate, up), dropout_keys)
