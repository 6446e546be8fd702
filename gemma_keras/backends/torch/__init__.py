"""Hot operations on PyTorch."""

from gemma_keras.backends.torch.attention import attention
from gemma_keras.backends.torch.head import chunked_log_probs, output_logits, weighted_log_prob
from gemma_keras.backends.torch.layers import linear, rms_norm, rotate, update_cache
from gemma_keras.backends.torch.programs import add_gradients, compile_forward, compile_gradients, to_host
from gemma_keras.backends.torch.updates import compile_update

IS_EAGER = True
