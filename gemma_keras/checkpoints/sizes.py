"""The sizes of a model by its name alone: no weights, no tokenizer, and of a published model no file at all."""

from pathlib import Path

from gemma_keras.checkpoints import gguf, gguf_reader, hub, hugging_face, hugging_face_reader
from gemma_keras.checkpoints.formats import recognize
from gemma_keras.checkpoints.hub_names import HUB_IDS
from gemma_keras.checkpoints.resolve import open_parts
from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig, size_name

_NAMES = {repository: name for name, repository in HUB_IDS.items()}


def config_of(source: str | Path) -> GemmaConfig:
    """The configuration of whatever `resolve.open_model` opens.

    Args:
        source: a published name or hub id, whose sizes are known; another hub id, of which `config.json` is fetched; a
            folder, or a file.

    Raises:
        CheckpointError: nothing there, or a damaged or foreign model; or the hub cannot be reached.
    """
    name = str(source)
    found = recognize(source)
    if found is gguf.FORMAT:
        return gguf_reader.read_config(source)
    if found is hugging_face.FORMAT:
        return hugging_face_reader.read_config(source)
    if found is not None:
        return open_parts(source, with_weights=False).config
    known = size_name(_NAMES.get(name, name))
    if known is not None:
        return PUBLISHED_SIZES[known]
    where = hub.hub_source(name)
    fetched = hub.download(where, ("config.json",))
    return gguf_reader.read_config(fetched) if fetched.is_file() else hugging_face_reader.read_config(fetched)
