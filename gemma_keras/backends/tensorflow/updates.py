"""The guarded optimizer step on TensorFlow."""

import numpy as np
import tensorflow as tf

from gemma_keras.backends.tensorflow.programs import compiled


def compile_update(optimizer, model):
    """A guarded optimizer step: a callable (gradients, scale, clip_norm) → global gradient norm after scaling, float32
    ().

    Gradients are multiplied by `scale`, clipped to the global norm `clip_norm` (0: not clipped) and applied. Where the
    norm is not finite, weights and optimizer stay as they are.
    """
    trainable = list(model.trainable_variables)
    optimizer.build(trainable)

    @compiled
    def run(gradients, scale, clip_norm):
        norm = tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients]) * scale
        factor = scale * tf.where(clip_norm > 0, tf.minimum(1.0, clip_norm / (norm + 1e-12)), 1.0)
        optimizer.apply(
            [tf.cast(tf.cast(g, tf.float32) * factor, v.dtype) for g, v in zip(gradients, trainable, strict=True)],
            trainable,
        )
        return norm

    @compiled
    def norm_of(gradients, scale):
        return tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients]) * scale

    def update(gradients, scale=1.0, clip_norm=0.0):
        scale = tf.constant(scale, tf.float32)
        norm = norm_of(gradients, scale)
        if np.isfinite(norm.numpy()):
            run(gradients, scale, tf.constant(clip_norm, tf.float32))
        return norm

    return update
