"""What a stage reads: a file, the built-in task, or what another stage collected."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from gemma_keras.checkpoints.hub import REVISION
from pipelines.schema.base import Problem, Settings
from pipelines.schema.roles import LocalFile, Names

COLUMNS = ("prompt", "completion", "answer", "text", "messages", "chosen", "rejected")
"""Keys of `FileData` that name a column."""
_WORD = r"[A-Za-z0-9][\w.-]*"
_ON_HUB = re.compile(rf"(?P<repository>{_WORD}(?:/{_WORD})?){REVISION}")
_FILE_NAME = re.compile(r"\.(jsonl?|ndjson|parquet|csv|tsv|txt|gz|zst|zip|arrow|xlsx?|ods)$")


class FileData(Settings):
    """Rows from a file, a folder or the Hugging Face hub, and which columns hold what."""

    path: Annotated[str, LocalFile()] = Field(
        min_length=1,
        description="JSON lines or parquet file, folder, or hub id such as org/name@v1; relative to the YAML file.",
    )
    config: str | None = Field(None, description="Configuration or folder of a hub data set, e.g. main, harmless-base.")
    split: str | None = Field(None, description="Split of a hub data set, e.g. train or train[:1000].")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub data set; default main.")
    prompt: str | None = Field(None, description="Column with the prompt: text or a list of messages.")
    completion: str | None = Field(None, description="Column with the response to learn.")
    answer: str | None = Field(None, description="Column with the known answer, for exact_answer.")
    text: str | None = Field(None, description="Column with plain text, for pretraining.")
    messages: str | None = Field(None, description="Column with a conversation, a list of {role, content}.")
    chosen: str | None = Field(None, description="Column with the preferred response.")
    rejected: str | None = Field(None, description="Column with the other response.")
    shuffle: int | None = Field(
        None, ge=0, description="Shuffle the rows with this seed, which is the same in every stage that gives it."
    )
    rows: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=2, max_length=2, description="Rows [a, b): from a, counted from 0, up to and without b."
    )
    limit: int | None = Field(None, ge=1, description="Use only the first so many rows; after `shuffle` and `rows`.")
    disjoint_from: list[Annotated[str, Names("prompts")]] | None = Field(
        None, min_length=1, description="Leave out prompts that these stages or models learned from; last of all."
    )
    format: Literal["auto", "hh_rlhf"] = Field("auto", description="hh_rlhf reads the raw `Human:`/`Assistant:` texts.")
    on_bad_row: Literal["strict", "lenient"] = Field(
        "strict", description="strict stops at a bad row; lenient sets it aside and counts."
    )

    def problems(self) -> Iterator[Problem]:
        """Rows that end before they begin, and two revisions."""
        if self.rows is not None and self.rows[0] >= self.rows[1]:
            yield ("rows",), f"[{self.rows[0]}, {self.rows[1]}] holds no row; expected [from, to) with from < to"
        if self.revision is not None and "@" in self.path and self.on_hub is not None:
            yield ("revision",), f"{self.path!r} names a revision too; leave one of the two out"

    @property
    def on_hub(self) -> tuple[str, str | None] | None:
        """What `path` is on the hub where it is no path here: the repository, and the branch, tag or commit, None for
        main. None where it can only be a file."""
        found = _ON_HUB.fullmatch(self.path)
        if found is None or _FILE_NAME.search(found["repository"]):
            return None
        return found["repository"], found["revision"] or self.revision

    @property
    def has_responses(self) -> bool:
        """True where the rows hold responses beside the prompts."""
        return self.completion is not None or self.messages is not None or self.format == "hh_rlhf"

    @property
    def columns(self) -> dict[str, str]:
        """Column names by what they hold; only those that are named."""
        return {name: value for name, value in self if name in COLUMNS and value is not None}


class TaskData(Settings):
    """Examples of the built-in task, generated, never read."""

    task: Literal["small_world"] = Field(description="Name of the task.")
    split: Literal["pretraining", "sft", "preferences", "rl", "heldout"] = Field(
        description="Disjoint part of the task."
    )
    size: int = Field(ge=1, description="Examples.")


def data_tag(value: Any) -> str:
    """Which of the three below a value in YAML is, for a union's discriminator."""
    if isinstance(value, str):
        return "<stage>"
    return "<task>" if isinstance(value, TaskData) or (isinstance(value, dict) and "task" in value) else "<file>"


Data = Annotated[
    Annotated[str, Tag("<stage>"), Names("preferences")]
    | Annotated[FileData, Tag("<file>")]
    | Annotated[TaskData, Tag("<task>")],
    Discriminator(data_tag),
]
"""The name of a stage with preferences, a file, or the built-in task."""

Rows = Annotated[
    Annotated[str, Tag("<stage>"), Names("rows")]
    | Annotated[FileData, Tag("<file>")]
    | Annotated[TaskData, Tag("<task>")],
    Discriminator(data_tag),
]
"""The name of a stage with rows of any kind, a file, or the built-in task."""

Preferences = Annotated[
    Annotated[str, Tag("<stage>"), Names("preferences")] | Annotated[FileData, Tag("<file>")],
    Discriminator(
        lambda value: None if data_tag(value) == "<task>" else data_tag(value),
        custom_error_type="no_preferences",
        custom_error_message="a preference_collection stage, or a file with chosen and rejected; the built-in task has "
        "no preferences until such a stage collects them",
    ),
]
"""The name of a stage with preferences, or a file; the built-in task has none until a stage collects them."""
