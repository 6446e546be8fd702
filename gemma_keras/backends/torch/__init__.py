"""Hot operations on PyTorch."""

from gemma_keras.backends.reference import fit_arguments
from gemma_keras.backends.torch.attention import attention
from gemma_keras.backends.torch.fused_adam import fast_updates
from gemma_keras.backends.torch.head import chunked_log_probs, output_logits
from gemma_keras.backends.torch.layers import linear, rms_norm, rotate, update_cache
from gemma_keras.backends.torch.programs import (
    add_gradients,
    compile_forward,
    compile_gradients,
    to_host,
    zero_gradients,
)
from gemma_keras.backends.torch.sampling import draw_tokens
from gemma_keras.backends.torch.updates import compile_update

IS_EAGER = True
