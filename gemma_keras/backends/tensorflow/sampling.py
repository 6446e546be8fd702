"""The draw of a token on TensorFlow."""

import tensorflow as tf

from gemma_keras.backends import blockwise_sampling, reference_sampling


def draw_tokens(logits, uniforms, temperature, top_k, top_p):
    """As `reference_sampling.draw_tokens`, which runs itself where there is an accelerator."""
    module = reference_sampling if tf.config.list_logical_devices("GPU") else blockwise_sampling
    return module.draw_tokens(logits, uniforms, temperature, top_k, top_p)
