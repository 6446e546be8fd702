"""Hot operations on JAX."""

from gemma_keras.backends.jax.attention import attention, causal_attention, is_plain
from gemma_keras.backends.jax.device import peak_device_memory
from gemma_keras.backends.jax.head import chunked_log_probs, output_logits, weighted_log_prob
from gemma_keras.backends.jax.layers import linear, update_cache
from gemma_keras.backends.jax.programs import compile_forward, compile_gradients, to_host, zero_gradients
from gemma_keras.backends.jax.remat import remat
from gemma_keras.backends.jax.sampling import draw_tokens
from gemma_keras.backends.jax.updates import compile_update
from gemma_keras.backends.reference import (
    decoding_weights,
    fast_updates,
    fit_arguments,
    gated_gelu,
    reshape,
    rms_norm,
    rotate,
    while_loop,
)

IS_EAGER = False
