"""From what a user names (a folder, a file, a hub id, a published size) to a path on this machine, and to the model
there."""

import re
from collections.abc import Sequence
from pathlib import Path

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.format import StoredModel
from gemma_keras.checkpoints.formats import FILE_SUFFIXES, MODEL_FILES, recognize

# No pickles, no HDF5, no other framework's weights: only what is read here.
_WANTED_FILES = [
    "config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
]  # fmt: skip
_WITHOUT_WEIGHTS = [name for name in _WANTED_FILES if "safetensors" not in name]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_SUFFIX = "|".join(map(re.escape, FILE_SUFFIXES))
_HUB_FILE = re.compile(rf"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/((?:[A-Za-z0-9][\w.-]*/)*[\w.-]+(?:{_SUFFIX}))\Z")

# Our names and KerasHub's → repositories on the Hugging Face hub.
HUB_IDS = {
    "gemma_2b": "google/gemma-2b", "gemma_7b": "google/gemma-7b", "gemma_instruct_2b": "google/gemma-2b-it",
    "gemma_instruct_7b": "google/gemma-7b-it", "gemma_1.1_instruct_2b": "google/gemma-1.1-2b-it",
    "gemma_1.1_instruct_7b": "google/gemma-1.1-7b-it", "code_gemma_2b": "google/codegemma-2b",
    "code_gemma_1.1_2b": "google/codegemma-1.1-2b",
    "code_gemma_7b": "google/codegemma-7b", "code_gemma_instruct_7b": "google/codegemma-7b-it",
    "code_gemma_1.1_instruct_7b": "google/codegemma-1.1-7b-it",
    **{f"gemma2_{size}": f"google/gemma-2-{size}" for size in ("2b", "9b", "27b")},
    **{f"gemma2_instruct_{size}": f"google/gemma-2-{size}-it" for size in ("2b", "9b", "27b")},
    "gemma3_270m": "google/gemma-3-270m", "gemma3_instruct_270m": "google/gemma-3-270m-it",
    **{f"gemma3_{size}": f"google/gemma-3-{size}-pt" for size in ("1b", "4b", "12b", "27b")},
    **{f"gemma3_instruct_{size}": f"google/gemma-3-{size}-it" for size in ("1b", "4b", "12b", "27b")},
}  # fmt: skip


def resolve(path_or_id: str | Path, with_weights: bool = True) -> Path:
    """A folder or file on this machine for what the user named; downloads where it is a hub id.

    Args:
        path_or_id: a folder; a model's file; a hub id such as "google/gemma-2b"; a file of a hub repository such as
            "owner/name/file.gguf"; or a published size such as "gemma_2b" or "gemma_instruct_2b_en".
        with_weights: False leaves the weights of a hub id where they are, if they lie in files of their own.

    Raises:
        CheckpointError: nothing of that name, a file of another kind, or the hub cannot be reached or refuses.
    """
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if recognize(path) is not None:
            return path
        hint = f"; give its folder, {path.parent}" if path.suffix == ".safetensors" else ""
        raise CheckpointError(f"{path}: expected {MODEL_FILES}{hint}.")
    name = str(path_or_id)
    name = HUB_IDS.get(name.removesuffix("_text").removesuffix("_en"), name)
    in_repository = _HUB_FILE.match(name)
    if in_repository is None and not _HUB_ID.match(name):
        raise CheckpointError(
            f"{name}: no such folder or file, and not a hub id such as google/gemma-2b. Check the path."
        )
    if in_repository is not None:
        return _download(in_repository[1], in_repository[2])
    return _download(name, None) if with_weights else _download(name, None, _WITHOUT_WEIGHTS)


def open_model(source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
    """Open whatever a user named: a handle or path of any format, a hub id, or a published size on the hub.

    Args:
        dtype, with_weights: see `Format.open`.

    Raises:
        CheckpointError: nothing there, or a damaged or foreign model.
    """
    found = recognize(source)
    if found is None:
        source = resolve(source, with_weights)
        found = recognize(source)
    if found is None:
        raise CheckpointError(f"{source}: no model there; expected {MODEL_FILES}")
    return found.open(source, dtype, with_weights)


def _download(repository: str, file: str | None, wanted: Sequence[str] = _WANTED_FILES) -> Path:
    """Downloads, or finds in the hub's cache, one file or the files we read."""
    # Imported here: a local folder needs no hub, and this import takes a third of a second.
    import huggingface_hub
    from huggingface_hub import errors

    try:
        if file is not None:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(wanted)))
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{repository}: accept its licence first, at https://huggingface.co/{repository}; then `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repository}: no such folder here, and no such public repository on the hub. Check the spelling, or `hf "
            "auth login`."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{repository}: no such folder here, not in the hub's cache, and the hub cannot be reached. "
            "Check the path, or download it where there is a network and give the folder."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{repository}: the hub answered with an error: {reason[0]}") from error
