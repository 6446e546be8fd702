"""Rows through the very functions that encode them in the run, before anything runs. Imports no Keras."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, cast

from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.encoding import EncodedPair, encode_instructions, encode_preferences, encode_texts
from pipelines.sampling.prompts import encode_prompts
from pipelines.schema.base import Encoding, Use
from pipelines.workflow.tokenizers import TurnsOnly

ROWS = 200
"""Rows of a file that `validate` encodes: enough for what is wrong with its shape, in less than a second."""


@dataclasses.dataclass(frozen=True)
class EncodedRows:
    """Rows as their stage encodes them.

    Args:
        examples: EncodedExample of texts and instructions, EncodedPair of preferences, lists of ids of prompts.
        rows: index of each in the input. truncated: how many were cut.
    """

    examples: Sequence[Any]
    rows: list[int]
    truncated: int = 0


def encode_rows(
    use: Use, tokenizer: GemmaTokenizer | TurnsOnly | None, examples: list, encoding: Encoding
) -> EncodedRows:
    """Typed examples to ids, as the stages do it.

    Args:
        use: what the rows were read as. tokenizer: None where the model has none. encoding: the stage's.

    Raises:
        DataError: rows that cannot be encoded, with their place. ConfigError: no tokenizer.
    """
    real = cast("GemmaTokenizer | None", tokenizer)
    if use == "prompt":
        prompts = encode_prompts(real, examples, encoding.max_length, encoding.room)
        places = {id(example): row for row, example in enumerate(examples)}
        return EncodedRows(prompts.token_ids, [places[id(example)] for example in prompts.examples])
    encode = {"text": encode_texts, "instruction": encode_instructions, "preference": encode_preferences}[use]
    found = encode(real, examples, encoding.max_length, encoding.overlong)  # type: ignore[operator]
    return EncodedRows(found.examples, found.rows, found.truncated)


def check_encoding(
    use: Use, tokenizer: GemmaTokenizer | TurnsOnly | None, examples: list, encoding: Encoding, are_all: bool
) -> None:
    """Encode rows, and refuse what the run would refuse of them.

    Args:
        examples: the first rows. are_all: True where the stage encodes no others.

    Raises:
        As `encode_rows`.
    """
    rows_decide = are_all or encoding.overlong == "error"
    if isinstance(tokenizer, TurnsOnly) or not rows_decide:
        # Of rows that are dropped or cut, others may be left; and without pieces nobody knows a length.
        encoding = dataclasses.replace(encoding, max_length=sys.maxsize, room=0)
    encode_rows(use, tokenizer, examples, encoding)


def lengths_of(example: Any) -> list[int]:
    """Tokens of an encoded row; of a pair those of either side."""
    if isinstance(example, EncodedPair):
        return [len(example.chosen_ids), len(example.rejected_ids)]
    return [len(example if isinstance(example, list) else example.token_ids)]
