"""Hot operations on TensorFlow."""

from gemma_keras.backends.reference import attention, linear, rms_norm, rotate, update_cache
from gemma_keras.backends.tensorflow.head import chunked_log_probs, output_logits, weighted_log_prob
from gemma_keras.backends.tensorflow.programs import add_gradients, compile_forward, compile_gradients, to_host
from gemma_keras.backends.tensorflow.updates import compile_update

IS_EAGER = False
