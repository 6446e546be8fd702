"""What a stage reads from the Hugging Face hub: its names there, and how they are written once a commit is known.

The workflow's model, the data of its stages and models that are only measured may lie there. A stage's `from` and its
raters are stages and folders.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from gemma_keras.checkpoints import keras_hub
from gemma_keras.checkpoints.formats import recognize
from gemma_keras.checkpoints.hub import hub_source, meaning
from pipelines.host.paths import find_path
from pipelines.schema.data import FileData
from pipelines.schema.roles import KeyPath, blocks, put, references_of, uses_workflow_model
from pipelines.workflow.schema import Workflow

DATA_PREFIX = "datasets/"
"""Before the names of data sets, as on the hub's site: a model may have the same."""
_KERAS_HUB = "KerasHub fetches it, and takes no commit"


@dataclasses.dataclass(frozen=True)
class HubName:
    """A name that leads to the hub.

    Args:
        kind: what it is there. written: as in the workflow, with its revision, in the lock.
        repository: "owner/name"; of what cannot be pinned, the name.
        revision: branch, tag or commit; None is main.
        file: its path in the repository, where one file is read.
        unpinned: why no commit of it can be asked for; None where one can.
    """

    kind: Literal["model", "data"]
    written: str
    repository: str
    revision: str | None = None
    file: str | None = None
    unpinned: str | None = None

    @property
    def contents(self) -> str:
        """What beside the commit says which bytes are read."""
        return self.repository if self.file is None else f"{self.repository}/{self.file}"

    @property
    def repo_type(self) -> str:
        """Of the repository, for `huggingface_hub`."""
        return "dataset" if self.kind == "data" else "model"

    @property
    def place(self) -> str:
        """Of the repository on the hub's site."""
        return f"{DATA_PREFIX}{self.repository}" if self.kind == "data" else self.repository

    @property
    def wanted(self) -> str:
        """What `hf download` would fetch."""
        more = " --repo-type dataset" if self.kind == "data" else "" if self.file is None else f" {self.file}"
        return f"{self.repository}{more}"

    def said(self, reason: str) -> str:
        """A sentence about it, for messages."""
        return f"{meaning(self.written, self.place)}: {reason}"

    def at(self, commit: str) -> str:
        """The name of the same at a commit; no folder beside the workflow has such a name."""
        pinned = f"{self.repository}@{commit}"
        return pinned if self.file is None else f"{pinned}/{self.file}"


def hub_names(workflow: Workflow, stage: str, base_folder: Path) -> dict[str, HubName]:
    """What a stage reads from the hub, by the dotted key that names it; `model` for the workflow's."""
    config = workflow.stages[stage]
    found = {}
    for path, block in blocks(config):
        if isinstance(block, FileData) and block.on_hub is not None and find_path(block.path, base_folder) is None:
            repository, revision = block.on_hub
            written = f"{DATA_PREFIX}{repository}" if revision is None else f"{DATA_PREFIX}{repository}@{revision}"
            found[_dotted((*path, "path"))] = HubName("data", written, repository, revision)
    for reference in references_of(config):
        is_elsewhere = reference.target in workflow.stages or find_path(reference.target, base_folder) is not None
        if reference.role.on_hub and not is_elsewhere:
            found[_dotted(reference.path)] = _model(reference.target)
    model = workflow.model
    if uses_workflow_model(config) and isinstance(model, str) and find_path(model, base_folder) is None:
        found["model"] = _model(model)
    return found


def put_contents(settings: dict[str, Any], dotted: str, name: HubName) -> None:
    """Replace a name in a stage's settings by what beside the commit says what is read, so that another way to write
    it is no change."""
    path = _path(dotted)
    put(settings, path, name.contents)
    if name.kind == "data":
        put(settings, (*path[:-1], "revision"), None)


def put_commit(settings: dict[str, Any], dotted: str, name: HubName, commit: str) -> None:
    """Make a stage's settings name a commit."""
    path = _path(dotted)
    put(settings, path, name.at(commit))
    if name.kind == "data":
        put(settings, (*path[:-1], "revision"), None)


def _model(name: str) -> HubName:
    if recognize(name) is keras_hub.FORMAT:
        return HubName("model", name, name, unpinned=_KERAS_HUB)
    source = hub_source(name)
    return HubName("model", name, source.repository, source.revision, source.file)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _path(dotted: str) -> KeyPath:
    return tuple(int(key) if key.isdecimal() else key for key in dotted.split("."))
