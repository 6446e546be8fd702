"""The sizes of a model by its name alone: no weights, no tokenizer, and of a published model no file at all."""

from pathlib import Path

from gemma_keras.checkpoints import gguf, gguf_reader, hub, hugging_face, hugging_face_reader
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.formats import recognize
from gemma_keras.checkpoints.hub_names import HUB_IDS
from gemma_keras.checkpoints.resolve import open_parts
from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig, size_name

_NAMES = {repository: name for name, repository in HUB_IDS.items()}


def config_of(source: str | Path, may_fetch: bool = True) -> GemmaConfig:
    """The configuration of whatever `resolve.open_model` opens.

    Args:
        source: a published name or hub id, whose sizes are known; another hub id, of which `config.json` is fetched; a
            folder, or a file.
        may_fetch: False takes what is on this machine and what is known by name.

    Raises:
        CheckpointError: nothing there, or a damaged or foreign model; or the hub cannot be reached or must not be.
    """
    name = str(source)
    found = recognize(source)
    if found is gguf.FORMAT:
        return gguf_reader.read_config(source)
    if found is hugging_face.FORMAT:
        return hugging_face_reader.read_config(source)
    known = size_name(_NAMES.get(name, name))
    if not may_fetch and known is None and not Path(source).exists():
        raise CheckpointError(f"{name}: its sizes are not known before it is fetched")
    if found is not None:
        return open_parts(source, with_weights=False).config
    if known is not None:
        return PUBLISHED_SIZES[known]
    where = hub.hub_source(name)
    fetched = hub.download(where, ("config.json",))
    return gguf_reader.read_config(fetched) if fetched.is_file() else hugging_face_reader.read_config(fetched)
