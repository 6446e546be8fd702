"""The draw of a token on JAX."""

import jax

from gemma_keras.backends import blockwise_sampling, reference_sampling


def draw_tokens(logits, uniforms, temperature, top_k, top_p):
    """As `reference_sampling.draw_tokens`, which runs itself where there is an accelerator."""
    module = blockwise_sampling if jax.default_backend() == "cpu" else reference_sampling
    return module.draw_tokens(logits, uniforms, temperature, top_k, top_p)
