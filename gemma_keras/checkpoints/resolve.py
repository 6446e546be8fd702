"""From what a user names (a folder, a file, a hub id, a published name, an adapter) to a path on this machine, and to
the model or the tokenizer there."""

import dataclasses
import os
from pathlib import Path

from gemma_keras.checkpoints import hub, keras_hub, merging, peft
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.format import StoredModel
from gemma_keras.checkpoints.formats import MODEL_FILES, recognize
from gemma_keras.checkpoints.tokenizers import checked_tokenizer
from gemma_keras.files import can_exist
from gemma_keras.text.folder import JSON_FILE, MODEL_FILE
from gemma_keras.text.tokenizer import GemmaTokenizer


def resolve(path_or_id: str | Path, with_weights: bool = True) -> Path:
    """A folder or file on this machine for what the user named; downloads where it is on the hub.

    Args:
        path_or_id: a folder; a model's file; or what `hub.hub_source` knows: a hub id such as "google/gemma-2b", a file
            of a hub repository such as "owner/name/file.gguf", or a published name such as "gemma_instruct_2b_en".
        with_weights: False leaves the weights of a repository where they are, if they lie in files of their own.

    Raises:
        CheckpointError: nothing of that name, a file of another kind, or the hub cannot be reached or refuses.
    """
    path = _expanded(path_or_id)
    if _exists(path) and path.is_dir():
        return path
    if _exists(path) and path.is_file():
        if recognize(path) is not None:
            return path
        hint = f"; give its folder, {path.parent}" if path.suffix == ".safetensors" else ""
        raise CheckpointError(f"{path}: expected {MODEL_FILES}{hint}.")
    return hub.download(
        hub.hub_source(str(path_or_id)), hub.MODEL_FILES_OF_HUB if with_weights else hub.TOKENIZER_FILES
    )


def _expanded(path: str | Path) -> Path:
    """With the user's folder for `~`; unlike `Path.expanduser` no error where there is no such user."""
    return Path(os.path.expanduser(path))


def _exists(path: Path) -> bool:
    return can_exist(path) and path.exists()


def check_name(name: str) -> None:
    """Raise where a name that is no path can lead to no model. Nothing is fetched.

    Raises:
        CheckpointError: see `hub.hub_source`.
    """
    if recognize(name) is None:
        hub.hub_source(name)
    elif recognize(name) is keras_hub.FORMAT:
        try:
            keras_hub.check_preset(name)
        except ModuleNotFoundError as error:
            raise CheckpointError(str(error)) from error


def open_model(source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
    """Open whatever a user named: a handle or path of any format, a hub id, a published name, or an adapter's folder,
    which gives the sum of its base and itself.

    Args:
        dtype, with_weights: see `Format.open`.

    Raises:
        CheckpointError: nothing there, or a damaged or foreign model.
    """
    return merging.merged(open_parts(source, dtype, with_weights))


def open_parts(source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
    """As `open_model`; but an adapter's folder gives its base, and its own place as `adapter`."""
    found = recognize(source)
    if found is None:
        name = str(source)
        is_local = _exists(_expanded(source))
        source = resolve(source, with_weights)
        if peft.is_adapter(source):
            return _with_base(source, dtype, with_weights)
        if not is_local and keras_hub.is_serialized(source):
            on_hub = hub.hub_source(name)
            if on_hub.revision is None:
                # KerasHub fetches its own files: which ones, its JSON says, and that only KerasHub reads.
                return keras_hub.FORMAT.open(f"{hub.PREFIX}{on_hub.repository}", dtype, with_weights)
            # It takes no revision, and would read the newest one.
            source = hub.download(on_hub, (*keras_hub.PRESET_FILES, "assets/*"))
        found = recognize(source)
    if found is None:
        raise CheckpointError(f"{source}: no model there; expected {MODEL_FILES}, or an adapter that names its base")
    return found.open(source, dtype, with_weights)


def open_tokenizer(source: str | Path) -> GemmaTokenizer:
    """The tokenizer of whatever a user named, or of a folder that has nothing else; no weights are fetched or read.

    Raises:
        CheckpointError: nothing there, no tokenizer there, or a damaged one.
    """
    found = recognize(source)
    tokenizer: GemmaTokenizer | None
    if found is keras_hub.FORMAT and not Path(source).exists():
        tokenizer = keras_hub.open_tokenizer(source)
    else:
        path = Path(source) if found is not None else resolve(source, with_weights=False)
        tokenizer = _tokenizer_at(path)
    if tokenizer is None:
        raise CheckpointError(
            f"{source}: no tokenizer there; expected {MODEL_FILE} or {JSON_FILE}, or a model's file that holds one."
        )
    return tokenizer


def _tokenizer_at(path: Path) -> GemmaTokenizer | None:
    pieces = path / keras_hub.TOKENIZER_FILE
    if pieces.is_file():
        return checked_tokenizer(pieces, lambda: GemmaTokenizer.from_file(pieces))
    if recognize(path) is not None and recognize(path) is not keras_hub.FORMAT:
        return open_parts(path, with_weights=False).tokenizer
    if _has_tokenizer(path):
        return checked_tokenizer(path, lambda: GemmaTokenizer.from_folder(path))
    return open_parts(path, with_weights=False).tokenizer if peft.is_adapter(path) else None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / file).is_file() for file in (MODEL_FILE, JSON_FILE))


def _with_base(folder: Path, dtype: str | None, with_weights: bool) -> StoredModel:
    """The base of an adapter, with the adapter's own tokenizer where it came with one."""
    file = folder / peft.CONFIG_FILE
    named, revision = peft.base_of(folder)
    beside = folder / named
    base: str | Path = beside if _exists(beside) else named
    if not _exists(_expanded(base)) and revision is not None and "@" not in named:
        base = f"{named}@{revision}"
    try:
        found = recognize(base)
        if found is keras_hub.FORMAT or (found is None and peft.is_adapter(resolve(base, with_weights=False))):
            raise CheckpointError(
                f"{base}: is no plain base model. Open that model, and give it this adapter with load_adapter"
            )
        model = open_parts(base, dtype, with_weights)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: the base model that `base_model_name_or_path` names: {error}") from error
    tokenizer = model.tokenizer
    if _has_tokenizer(folder):
        rows = model.config.vocabulary_size
        tokenizer = checked_tokenizer(folder, lambda: GemmaTokenizer.from_folder(folder, model.config.family, rows))
    return dataclasses.replace(model, tokenizer=tokenizer, adapter=folder)
