"""The token embedding, shared between input and output."""

import keras
import numpy as np
from keras import ops

from gemma_keras.head import full_logits
from gemma_keras.initializers import FirstWeights


class TokenEmbedding(keras.layers.Layer):
    """Rows of a (v, d) table, and its product with states.

    Args:
        vocabulary_size: v.
        width: d.
        weights: the initial ones.
        logit_soft_cap: of the logits, Gemma 2's; None for none.

    Call: int (b, t) → float (b, t, d), not scaled, see `input_scale`; with `reverse=True` float (b, t, d) → logits
    float32 (b, t, v). `as_output_matrix()` → float (v, d) in the compute dtype.

    Source: arXiv:2403.08295, section 2.
    """

    def __init__(
        self, vocabulary_size: int, width: int, weights: FirstWeights, logit_soft_cap: float | None = None, **kwargs
    ):
        super().__init__(**kwargs)
        self.width = width
        self.logit_soft_cap = logit_soft_cap
        # Scaled by sqrt(d) the rows then have unit size: smaller ones drown in the first blocks' updates, and copying
        # is learned late.
        initializer = weights.initializer("embedding", width**-0.5)
        # autocast=False: casting the looked-up rows is cheaper than casting the whole table.
        self.embeddings = self.add_weight(
            shape=(vocabulary_size, width), initializer=initializer, name="embeddings", autocast=False
        )
        self.built = True

    def call(self, inputs, reverse=False):
        if reverse:
            return full_logits(inputs, self.as_output_matrix(), self.logit_soft_cap)
        return ops.cast(ops.take(self.embeddings, inputs, axis=0), self.compute_dtype)

    def input_scale(self):
        """What rows are multiplied with on the way in: sqrt(d), rounded to the compute dtype as the published bfloat16
        weights were trained with."""
        return ops.cast(np.sqrt(float(self.width)), self.compute_dtype)

    def as_output_matrix(self):
        return ops.cast(ops.convert_to_tensor(self.embeddings), self.compute_dtype)
