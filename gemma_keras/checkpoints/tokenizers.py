"""The tokenizer that lies beside a model's weights; its damage is told like that of the weights."""

import warnings
from pathlib import Path

from gemma_keras.checkpoints import gguf
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import GemmaConfig
from gemma_keras.tokenizer import GemmaTokenizer
from gemma_keras.tokenizer_files import START_OF_TURN
from gemma_keras.tokenizer_folder import JSON_FILE, MODEL_FILE


def read_tokenizer(path: Path, config: GemmaConfig) -> GemmaTokenizer | None:
    """The tokenizer of a model's folder or `.gguf` file; None where there is none.

    A chat template in other turns than Gemma's is handed on, with a warning: conversations are not written by it here.

    Raises:
        CheckpointError: it is damaged, or no tokenizer of a Gemma.
    """
    try:
        tokenizer = _read(path, config)
    except CheckpointError:
        raise
    except ValueError as error:
        message = str(error)
        raise CheckpointError(message if str(path) in message else f"{path}: {message}") from error
    if tokenizer is not None and tokenizer.end_of_turn_id is not None and START_OF_TURN not in tokenizer.chat_template:
        warnings.warn(
            f"{path}: the chat template does not use {START_OF_TURN}. Conversations are written in Gemma's turns here, so this model may "
            "not know them; give prompts as plain text, or train it on them. The template is handed on as it is.",
            stacklevel=2,
        )
    return tokenizer


def _read(path: Path, config: GemmaConfig) -> GemmaTokenizer | None:
    if path.is_file():
        metadata = gguf.read_tokenizer(path)
        return None if metadata is None else GemmaTokenizer.from_gguf_metadata(metadata, config.family)
    if any((path / file).is_file() for file in (MODEL_FILE, JSON_FILE)):
        return GemmaTokenizer.from_folder(path, config.family, config.vocabulary_size)
    return None
