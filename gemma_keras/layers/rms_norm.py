"""Root-mean-square normalisation with Gemma's `1 + scale`."""

import keras

from gemma_keras import backends


class RMSNorm(keras.layers.Layer):
    """`x * rsqrt(mean(x ** 2) + epsilon) * (1 + scale)`, computed in float32 whatever the compute dtype.

    Args:
        size: length of the last axis.
        epsilon: added to the mean of squares.
        initializer: of the scale.

    Call: float (..., size) → the same shape and dtype.

    Source: arXiv:2403.08295, section 2 (RMSNorm); `1 + scale` with scale starting at zero is the published checkpoints'
    convention.
    """

    def __init__(self, size: int, epsilon: float = 1e-6, initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.size, self.initializer = size, initializer
        # Not in __init__ itself: Keras gives a layer its path here, which a policy map goes by.
        self.build(None)
        self.initializer = "zeros"  # a checkpoint's would hold on to it

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(self.size,), initializer=self.initializer, name="scale", autocast=False)

    def call(self, x):
        return backends.rms_norm(x, self.scale, self.epsilon)
