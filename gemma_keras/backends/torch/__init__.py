"""Hot operations on PyTorch."""

from keras import remat

from gemma_keras.backends.torch.attention import DENSE_TOKENS, attention, causal_attention, is_plain
from gemma_keras.backends.torch.head import chunked_log_probs, output_logits
from gemma_keras.backends.torch.layers import linear, rms_norm, rotate, update_cache
from gemma_keras.backends.torch.programs import add_gradients, compile_forward, compile_gradients, to_host
from gemma_keras.backends.torch.updates import compile_update

IS_EAGER = True
