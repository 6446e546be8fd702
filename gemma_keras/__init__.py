"""Gemma models as Keras 3 layers for JAX, TensorFlow and PyTorch.

Importing this package chooses the backend (see `backend_choice`) and loads nothing heavy: the names below are loaded at
first use.
"""

import contextlib
import importlib
from typing import TYPE_CHECKING

from gemma_keras import backend_choice
from gemma_keras.config import GemmaConfig

__version__ = "0.1.0"

_MODULE_OF = {
    "GemmaBackbone": "gemma_keras.backbone",
    "GemmaCausalLM": "gemma_keras.causal_lm",
    "GemmaRewardModel": "gemma_keras.reward_model",
    "GemmaTokenizer": "gemma_keras.text.tokenizer",
    "Sampler": "gemma_keras.sampling",
}
__all__ = ["GemmaConfig", "__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from gemma_keras.backbone import GemmaBackbone
    from gemma_keras.causal_lm import GemmaCausalLM
    from gemma_keras.reward_model import GemmaRewardModel
    from gemma_keras.sampling import Sampler
    from gemma_keras.text.tokenizer import GemmaTokenizer


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'gemma_keras' has no attribute {name!r}")
    backend_choice.set_backend()
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


# A wrong choice is reported when a model is first asked for, so that the command line can report it in its own words.
with contextlib.suppress(backend_choice.BackendError):
    backend_choice.set_backend()
