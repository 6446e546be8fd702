"""The tokenizer that lies beside a model's weights; its damage is told like that of the weights."""

from pathlib import Path

from gemma_keras.checkpoints import gguf
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.tokenizer import GemmaTokenizer


def read_tokenizer(path: Path, family: str) -> GemmaTokenizer | None:
    """The tokenizer of a model's folder or `.gguf` file; None where there is none.

    Raises:
        CheckpointError: it is damaged, or no tokenizer of a Gemma.
    """
    try:
        if path.is_file():
            metadata = gguf.read_tokenizer(path)
            return None if metadata is None else GemmaTokenizer.from_gguf_metadata(metadata, family=family)
        if any((path / file).is_file() for file in ("tokenizer.model", "tokenizer.json")):
            return GemmaTokenizer.from_folder(path, family=family)
    except CheckpointError:
        raise
    except ValueError as error:
        message = str(error)
        raise CheckpointError(message if str(path) in message else f"{path}: {message}") from error
    return None
