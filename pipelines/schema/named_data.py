"""Several sources of rows side by side, each with a name: what figures of each are told apart by."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from pipelines.schema.base import Problem, Settings
from pipelines.schema.data import FileData, TaskData, data_tag
from pipelines.schema.roles import KeyPath, Names

SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class NamedFile(FileData):
    """Rows of a file with a name."""

    name: SourceName = Field(description="What figures call these rows.")


class NamedTask(TaskData):
    """Examples of the built-in task with a name."""

    name: SourceName = Field(description="What figures call these rows.")


class NamedStage(Settings):
    """Rows of an earlier stage with a name."""

    stage: Annotated[str, Names("rows")] = Field(min_length=1, description="Stage that left the rows.")
    name: SourceName = Field(description="What figures call these rows.")


Named = NamedFile | NamedTask | NamedStage


def spec_of(source: Named) -> str | FileData | TaskData:
    """What a stage's `data` would be if these rows were all of it."""
    return source.stage if isinstance(source, NamedStage) else source


def tag_of(value: Any) -> str:
    """Which of the three a value in YAML is, for a union's discriminator."""
    is_stage = isinstance(value, NamedStage) or (isinstance(value, dict) and "stage" in value)
    return "<stage>" if is_stage else data_tag(value)


NamedSources = Annotated[
    list[
        Annotated[
            Annotated[NamedFile, Tag("<file>")]
            | Annotated[NamedTask, Tag("<task>")]
            | Annotated[NamedStage, Tag("<stage>")],
            Discriminator(tag_of),
        ]
    ],
    Field(min_length=1),
]
"""A list of any of the three."""


def list_or_tag(value: Any) -> str:
    """Whether a value in YAML is such a list, and if not which of the three kinds of data it is."""
    return "<list>" if isinstance(value, list) else data_tag(value)


def name_problems(sources: Sequence[Named], path: KeyPath) -> Iterator[Problem]:
    """A name that is given twice.

    Args:
        path: keys that lead to the list.
    """
    names = [source.name for source in sources]
    for place, name in enumerate(names):
        if name in names[:place]:
            yield (*path, place, "name"), f"two sources are called {name!r}; expected a name for each"
