"""Repositories of the Hugging Face hub: what names them, and their files on this machine."""

import dataclasses
import re
from pathlib import Path

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.formats import FILE_SUFFIXES, MODEL_FILES
from gemma_keras.checkpoints.hub_names import hub_id, similar_name
from gemma_keras.json_values import shown

# No pickles, no HDF5, no other framework's weights: only what is read here.
TOKENIZER_FILES = (
    "config.json", "generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "adapter_config.json",
)  # fmt: skip
MODEL_FILES_OF_HUB = (
    *TOKENIZER_FILES, "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json",
    "adapter_model.safetensors",
)  # fmt: skip
PREFIX = "hf://"
_WORD = r"[A-Za-z0-9][\w.-]*"
REVISION = rf"(?:@(?P<revision>refs/[a-z]+/{_WORD}|{_WORD}))?"
"""Pattern of what may follow a repository: `@` and a branch, tag or commit."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit in full, which means the same for ever."""
_SUFFIX = "|".join(map(re.escape, FILE_SUFFIXES))
_IN_HUB = re.compile(rf"(?P<repository>{_WORD}/{_WORD}){REVISION}(?:/(?P<file>(?:{_WORD}/)*[\w.-]+(?:{_SUFFIX})))?\Z")
_PUBLISHED = re.compile(rf"(?P<name>{_WORD}){REVISION}\Z")


@dataclasses.dataclass(frozen=True)
class HubSource:
    """A repository, or one file of it.

    Args:
        name: as the user wrote it, for messages.
        repository: "owner/name".
        revision: branch, tag or commit; None is "main".
        file: its path in the repository; None for the files that are read here.
    """

    name: str
    repository: str
    revision: str | None = None
    file: str | None = None


def hub_source(name: str) -> HubSource:
    """What a name that is no path means on the hub. Nothing is fetched.

    Args:
        name: "owner/name", "owner/name/file.gguf", either behind `hf://`, or a published name such as "gemma_2b" or
            KerasHub's "gemma2_instruct_2b_en"; `@` and a branch, tag or commit may follow the repository or name.

    Raises:
        CheckpointError: it is none of these, or KerasHub's name of a model that is not read here.
    """
    found = _IN_HUB.match(name.removeprefix(PREFIX))
    if found is not None:
        return HubSource(name, found["repository"], found["revision"], found["file"])
    published = _PUBLISHED.match(name)
    repository = None if published is None else hub_id(published["name"])
    if published is None or repository is None:
        said = name if name.isprintable() and len(name) <= 300 else shown(name)
        raise CheckpointError(
            f"{said}: no such folder or file, no published name such as gemma2_2b, and not a hub id such as "
            f"google/gemma-2b.{similar_name(name)} Expected one of these, or {MODEL_FILES}. Check the path."
        )
    return HubSource(name, repository, published["revision"])


def is_on_hub(name: str) -> bool:
    """Whether a name that is no path can be one on the hub. Nothing is fetched."""
    try:
        hub_source(name)
    except CheckpointError:
        return False
    return True


def download(source: HubSource, files: tuple[str, ...] = MODEL_FILES_OF_HUB) -> Path:
    """The folder, or the one file, on this machine; fetched unless the hub's cache has it.

    Args:
        files: patterns of what is wanted where the source is a whole repository.

    Raises:
        CheckpointError: the hub cannot be reached and the cache has nothing, or the hub refuses.
    """
    # Imported here: a local folder needs no hub, and this import takes a third of a second.
    import huggingface_hub
    from huggingface_hub import errors

    repository, revision = source.repository, source.revision or "main"
    meant = meaning(source.name, repository)
    try:
        if source.file is not None:
            return Path(huggingface_hub.hf_hub_download(repository, source.file, revision=source.revision))
        return Path(huggingface_hub.snapshot_download(repository, revision=source.revision, allow_patterns=list(files)))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        wanted = repository if source.file is None else f"{repository} {source.file}"
        raise CheckpointError(f"{meant}: {silence(wanted, revision)}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise CheckpointError(f"{meant}: {refusal(error, repository, revision)}") from error


def meaning(name: str, place: str) -> str:
    """A name for messages, with the repository where it says another."""
    return name if name == place else f"{name} means {place} on the hub"


def silence(wanted: str, revision: str) -> str:
    """What to say and do where the hub cannot be reached.

    Args:
        wanted: what `hf download` would fetch. revision: of it.
    """
    return (
        f"no such folder here, not in the hub's cache, and the hub cannot be reached for revision {revision}. Check "
        f"the name, or run where there is a network: hf download {wanted} --revision {revision} --local-dir FOLDER; "
        "then give what lies in FOLDER."
    )


def refusal(error: Exception, place: str, revision: str) -> str:
    """Why the hub gave nothing, and what to do.

    Args:
        error: what `huggingface_hub` raised. place: of the repository on the hub's site, such as "google/gemma-2b" or
            "datasets/openai/gsm8k". revision: what was asked for.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"accept its licence first, at https://huggingface.co/{place}; then `hf auth login`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}. Give a branch, tag or commit."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such folder here, and no such public repository on the hub. Check the spelling, or `hf auth login`."
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return f"the hub answered with an error: {reason[0]}"
