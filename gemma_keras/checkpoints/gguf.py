"""GGUF as a format: one file, which llama.cpp and Ollama run. Read by `gguf_reader.py`, written by `gguf_writer.py`."""

from pathlib import Path

from gemma_keras.checkpoints import gguf_reader, gguf_writer
from gemma_keras.checkpoints.format import StoredModel
from gemma_keras.checkpoints.tokenizers import checked_tokenizer
from gemma_keras.errors import InputError
from gemma_keras.text.tokenizer import GemmaTokenizer


class GGUF:
    """See `Format`."""

    description = "a .gguf file"
    suffix = ".gguf"
    dtypes = tuple(gguf_writer.TYPES)
    needs_keras = False

    def recognizes(self, source: str | Path) -> bool:
        """A file of that name."""
        path = Path(source)
        return path.suffix == self.suffix and path.is_file()

    def open(self, source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
        """See `Format.open`."""
        path = Path(source)
        config = gguf_reader.read_config(path)

        def read_tokenizer() -> GemmaTokenizer | None:
            metadata = gguf_reader.read_tokenizer(path)
            return None if metadata is None else GemmaTokenizer.from_gguf_metadata(metadata, config.family)

        weights = gguf_reader.read_weights(path, dtype) if with_weights else None
        return StoredModel(config, weights, checked_tokenizer(path, read_tokenizer))

    def write(self, target: Path, model: StoredModel, dtype: str | None = None) -> str:
        """See `Format.write`."""
        if model.reward is not None:
            raise InputError("a reward model; llama.cpp has no scalar head. Convert it to a folder")
        if model.tokenizer is None:
            raise InputError(
                "has no tokenizer, without which llama.cpp opens no file. Put its tokenizer.model into the folder"
            )
        dtype = dtype or ("bfloat16" if model.dtype == "bfloat16" else "float16")
        gguf_writer.write(target, model.config, model.weights or (), model.tokenizer, dtype)
        return dtype


FORMAT = GGUF()
