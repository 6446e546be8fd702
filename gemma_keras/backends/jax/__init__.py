"""Hot operations on JAX."""

from gemma_keras.backends.jax.attention import attention
from gemma_keras.backends.jax.head import chunked_log_probs, output_logits, weighted_log_prob
from gemma_keras.backends.jax.layers import linear, update_cache
from gemma_keras.backends.jax.programs import add_gradients, compile_forward, compile_gradients, to_host
from gemma_keras.backends.jax.updates import compile_update
from gemma_keras.backends.reference import rms_norm, rotate

IS_EAGER = False
