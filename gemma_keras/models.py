"""The models under KerasHub's names, so that `keras_hub.models` becomes `gemma_keras.models` and nothing else changes.

One implementation is every Gemma: what `Gemma3CausalLM.from_preset` opens decides on the family, not the class.
"""

from gemma_keras.backbone import GemmaBackbone
from gemma_keras.causal_lm import GemmaCausalLM
from gemma_keras.inputs.preprocessor import GemmaCausalLMPreprocessor
from gemma_keras.reward_model import GemmaRewardModel
from gemma_keras.text.tokenizer import GemmaTokenizer

CausalLM = Gemma3CausalLM = GemmaCausalLM
CausalLMPreprocessor = Gemma3CausalLMPreprocessor = GemmaCausalLMPreprocessor
Backbone = Gemma3Backbone = GemmaBackbone
Tokenizer = Gemma3Tokenizer = GemmaTokenizer

__all__ = [
    "Backbone",
    "CausalLM",
    "CausalLMPreprocessor",
    "Gemma3Backbone",
    "Gemma3CausalLM",
    "Gemma3CausalLMPreprocessor",
    "Gemma3Tokenizer",
    "GemmaBackbone",
    "GemmaCausalLM",
    "GemmaCausalLMPreprocessor",
    "GemmaRewardModel",
    "GemmaTokenizer",
    "Tokenizer",
]
