"""Hot operations on TensorFlow."""

from keras import remat

from gemma_keras.backends.reference import (
    decoding_weights,
    fast_updates,
    gated_gelu,
    linear,
    reshape,
    rms_norm,
    rotate,
    update_cache,
    while_loop,
)
from gemma_keras.backends.tensorflow.attention import attention, causal_attention, is_plain
from gemma_keras.backends.tensorflow.device import peak_device_memory
from gemma_keras.backends.tensorflow.fit_data import fit_arguments
from gemma_keras.backends.tensorflow.head import chunked_log_probs, output_logits, weighted_log_prob
from gemma_keras.backends.tensorflow.programs import compile_forward, compile_gradients, to_host, zero_gradients
from gemma_keras.backends.tensorflow.sampling import draw_tokens
from gemma_keras.backends.tensorflow.updates import compile_update

IS_EAGER = False
