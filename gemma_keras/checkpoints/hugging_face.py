"""A Hugging Face folder as a format, our native one: what a stage writes opens in transformers and TRL as it is."""

from pathlib import Path

from gemma_keras.checkpoints import hugging_face_reader as reader
from gemma_keras.checkpoints import hugging_face_writer as writer
from gemma_keras.checkpoints.format import FLOAT_DTYPES, StoredModel
from gemma_keras.checkpoints.tokenizers import checked_tokenizer
from gemma_keras.text.folder import JSON_FILE, MODEL_FILE
from gemma_keras.text.tokenizer import GemmaTokenizer


class HuggingFace:
    """See `Format`."""

    description = "a folder with config.json"
    suffix = None
    dtypes = FLOAT_DTYPES
    needs_keras = False

    def recognizes(self, source: str | Path) -> bool:
        """A folder with a `config.json`."""
        return (Path(source) / reader.CONFIG_FILE).is_file()

    def open(self, source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
        """See `Format.open`."""
        folder = Path(source)
        config = reader.read_config(folder)

        def read_tokenizer() -> GemmaTokenizer | None:
            if not any((folder / file).is_file() for file in (MODEL_FILE, JSON_FILE)):
                return None
            return GemmaTokenizer.from_folder(folder, config.family, config.vocabulary_size)

        weights = reader.read_weights(folder, dtype) if with_weights else None
        tokenizer = checked_tokenizer(folder, read_tokenizer)
        return StoredModel(
            config, weights, tokenizer, reader.read_dtype(folder) or "float32", reader.read_reward(folder)
        )

    def write(self, target: Path, model: StoredModel, dtype: str | None = None) -> str:
        """See `Format.write`: configuration, weights, tokenizer, chat template, stop ids."""
        dtype = dtype or model.dtype
        stops = None if model.tokenizer is None else model.tokenizer.stop_token_ids
        writer.write_config(target, model.config, dtype, model.reward, stops)
        writer.write_weights(target, model.weights or ())
        if model.tokenizer is not None:
            model.tokenizer.write_files(target)
        return dtype


FORMAT = HuggingFace()
