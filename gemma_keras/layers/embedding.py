"""The token embedding, shared between input and output."""

import keras
import numpy as np
from keras import ops

from gemma_keras.initializers import FirstWeights


class TokenEmbedding(keras.layers.Layer):
    """Rows of a (v, d) table, scaled by sqrt(d) rounded to the compute dtype.

    Args:
        vocabulary_size: v.
        width: d.
        weights: the initial ones.

    Call: int (b, t) → float (b, t, d). `as_output_matrix()` → float (v, d) in the compute dtype, for the logits, which
    are not scaled.

    Source: arXiv:2403.08295, section 2; the rounding of sqrt(d) is what the published bfloat16 weights were trained
    with.
    """

    def __init__(self, vocabulary_size: int, width: int, weights: FirstWeights, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        # Scaled by sqrt(d) the rows then have unit size: smaller ones drown in the first blocks' updates, and copying
        # is learned late.
        initializer = weights.initializer("embedding", width**-0.5)
        # autocast=False: casting the looked-up rows is cheaper than casting the whole table.
        self.embeddings = self.add_weight(
            shape=(vocabulary_size, width), initializer=initializer, name="embeddings", autocast=False
        )
        self.built = True

    def call(self, token_ids):
        rows = ops.cast(ops.take(self.embeddings, token_ids, axis=0), self.compute_dtype)
        return rows * ops.cast(np.sqrt(float(self.width)), self.compute_dtype)

    def as_output_matrix(self):
        return ops.cast(ops.convert_to_tensor(self.embeddings), self.compute_dtype)
