"""The tokenizer under KerasHub's names, `keras_hub.tokenizers.GemmaTokenizer` and so on; loads no Keras."""

from gemma_keras.text.tokenizer import GemmaTokenizer

Tokenizer = Gemma3Tokenizer = GemmaTokenizer

__all__ = ["Gemma3Tokenizer", "GemmaTokenizer", "Tokenizer"]
