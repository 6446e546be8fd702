"""Filling in the middle: what goes between a prefix and a suffix, in the format that CodeGemma was trained on.

    <bos><|fim_prefix|>import <|fim_suffix|>
    sys.exit(0)<|fim_middle|>

Marks are inserted as ids, with nothing around them; what stands in the two texts never becomes one.

Source: CodeGemma, arXiv:2406.11409; ai.google.dev/gemma/docs/codegemma/prompt-structure.
"""

from gemma_keras.errors import InputError
from gemma_keras.text.tokenizer import GemmaTokenizer


def encode_infilling(tokenizer: GemmaTokenizer, prefix: str, suffix: str) -> list[int]:
    """Ids that the middle follows.

    Args:
        tokenizer: CodeGemma's. prefix, suffix: the text before and after the place; either may be empty.

    Raises:
        InputError: a tokenizer without the marks, or a text that is none.
    """
    marks = tokenizer.infilling_marks
    if marks is None:
        raise InputError(
            "The tokenizer has no <|fim_prefix|>, <|fim_suffix|> and <|fim_middle|>: use a CodeGemma, or continue a "
            "plain text."
        )
    for name, text in (("prefix", prefix), ("suffix", suffix)):
        if not isinstance(text, str):
            raise InputError(f"`{name}` must be a text. Received: {type(text).__name__}")
    return [
        tokenizer.bos_token_id,
        marks.prefix,
        *tokenizer.encode(prefix),
        marks.suffix,
        *tokenizer.encode(suffix),
        marks.middle,
    ]


def infilling_stop_token_ids(tokenizer: GemmaTokenizer) -> tuple[int, ...]:
    """Ids that end a middle: those that end any response, and every mark; CodeGemma closes with the file separator."""
    return tokenizer.stop_token_ids + tuple(tokenizer.infilling_marks or ())
