"""Hot operations on PyTorch."""

from keras import remat

from gemma_keras.backends.reference import fit_arguments
from gemma_keras.backends.torch.attention import attention, causal_attention, is_plain
from gemma_keras.backends.torch.device import peak_device_memory
from gemma_keras.backends.torch.fused_adam import fast_updates
from gemma_keras.backends.torch.head import chunked_log_probs, output_logits, weighted_log_prob
from gemma_keras.backends.torch.layers import gated_gelu, reshape, rms_norm, rotate, update_cache
from gemma_keras.backends.torch.packed import DecodingWeights as decoding_weights
from gemma_keras.backends.torch.packed import linear
from gemma_keras.backends.torch.programs import (
    compile_forward,
    compile_gradients,
    to_host,
    while_loop,
    zero_gradients,
)
from gemma_keras.backends.torch.sampling import draw_tokens
from gemma_keras.backends.torch.updates import compile_update

IS_EAGER = True
