"""The tokenizer that lies beside a model's weights; its damage is told like that of the weights."""

import warnings
from collections.abc import Callable
from pathlib import Path

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.text.sentencepiece_files import START_OF_TURN
from gemma_keras.text.tokenizer import GemmaTokenizer


def checked_tokenizer(origin: Path, read: Callable[[], GemmaTokenizer | None]) -> GemmaTokenizer | None:
    """What `read` gives, its errors told with the place.

    A chat template in other turns than Gemma's is handed on, with a warning: conversations are not written by it here.

    Args:
        origin: the model's folder or file, for messages. read: the tokenizer, None where there is none.

    Raises:
        CheckpointError: it is damaged, or no tokenizer of a Gemma.
    """
    try:
        tokenizer = read()
    except CheckpointError:
        raise
    except ValueError as error:
        message = str(error)
        raise CheckpointError(message if str(origin) in message else f"{origin}: {message}") from error
    if tokenizer is not None and tokenizer.end_of_turn_id is not None and START_OF_TURN not in tokenizer.chat_template:
        warnings.warn(
            f"{origin}: the chat template does not use {START_OF_TURN}. Conversations are written in Gemma's turns "
            "here, so this model may not know them; give prompts as plain text, or train it on them. The template is "
            "handed on as it is.",
            stacklevel=2,
        )
    return tokenizer
