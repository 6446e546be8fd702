"""Gemma models as Keras 3 layers for JAX, TensorFlow and PyTorch.

Importing this package chooses the backend (see `backend_choice`) and loads nothing heavy: the names below are loaded at
first use. `models`, `samplers` and `tokenizers` hold the same under KerasHub's names.
"""

import contextlib
import importlib
from typing import TYPE_CHECKING

from gemma_keras import backend_choice
from gemma_keras.config import GemmaConfig

__version__ = "0.1.0"

_MODULE_OF = {
    "Gemma3Backbone": "gemma_keras.models",
    "Gemma3CausalLM": "gemma_keras.models",
    "Gemma3Tokenizer": "gemma_keras.tokenizers",
    "GemmaBackbone": "gemma_keras.backbone",
    "GemmaCausalLM": "gemma_keras.causal_lm",
    "GemmaCausalLMPreprocessor": "gemma_keras.inputs.preprocessor",
    "GemmaRewardModel": "gemma_keras.reward_model",
    "GemmaTokenizer": "gemma_keras.text.tokenizer",
    "Sampler": "gemma_keras.sampling",
    "from_marked_text": "gemma_keras.text.marked_text",
}
_WITHOUT_BACKEND = ("GemmaTokenizer", "Gemma3Tokenizer", "open_tokenizer", "from_marked_text")
# What `GemmaTokenizer.from_preset` asks for: file formats lie a floor above the tokenizer.
_WITHIN = {"open_tokenizer": "gemma_keras.checkpoints.resolve"}
_MODULES = {name: f"gemma_keras.{name}" for name in ("models", "samplers", "tokenizers")}
__all__ = ["GemmaConfig", "__version__", *_MODULE_OF, *_MODULES]

if TYPE_CHECKING:
    from gemma_keras import models, samplers, tokenizers
    from gemma_keras.backbone import GemmaBackbone
    from gemma_keras.causal_lm import GemmaCausalLM
    from gemma_keras.checkpoints.resolve import open_tokenizer
    from gemma_keras.inputs.preprocessor import GemmaCausalLMPreprocessor
    from gemma_keras.models import Gemma3Backbone, Gemma3CausalLM
    from gemma_keras.reward_model import GemmaRewardModel
    from gemma_keras.sampling import Sampler
    from gemma_keras.text.marked_text import from_marked_text
    from gemma_keras.text.tokenizer import GemmaTokenizer
    from gemma_keras.tokenizers import Gemma3Tokenizer


def __getattr__(name):
    if name in _MODULES:
        backend_choice.set_backend()
        return importlib.import_module(_MODULES[name])
    module = _MODULE_OF.get(name) or _WITHIN.get(name)
    if module is None:
        raise AttributeError(f"module 'gemma_keras' has no attribute {name!r}")
    if name not in _WITHOUT_BACKEND:
        backend_choice.set_backend()
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


# A wrong choice is reported when a model is first asked for, so that the command line can report it in its own words.
with contextlib.suppress(backend_choice.BackendError):
    backend_choice.set_backend()
