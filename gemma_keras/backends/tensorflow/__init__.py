"""Hot operations on TensorFlow."""

from keras import remat

from gemma_keras.backends.reference import linear, rms_norm, rotate, update_cache
from gemma_keras.backends.tensorflow.attention import DENSE_TOKENS, attention, causal_attention, is_plain
from gemma_keras.backends.tensorflow.head import chunked_log_probs, output_logits
from gemma_keras.backends.tensorflow.programs import add_gradients, compile_forward, compile_gradients, to_host
from gemma_keras.backends.tensorflow.updates import compile_update

IS_EAGER = False
