"""Training on several sources of rows at once, in shares that may change on the way."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from pipelines.host.spelling import did_you_mean
from pipelines.schema.base import Problem, Settings, TrainingOptions
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.named_data import NamedFile, NamedStage, NamedTask, list_or_tag, name_problems, tag_of
from pipelines.schema.roles import TELLS, Names

Weight = Annotated[float, Field(ge=0)]


class Weighted(Settings):
    """A source's share of what is learned from. Abstract."""

    weight: Weight = Field(
        1.0,
        description="Share of the rows, beside the other sources' weights; 0: not yet.",
        json_schema_extra={TELLS: True},
    )


class WeightedFile(NamedFile, Weighted):
    """Rows of a file that are a part of the training data."""


class WeightedTask(NamedTask, Weighted):
    """Examples of the built-in task that are a part of the training data."""


class WeightedStage(NamedStage, Weighted):
    """Rows of an earlier stage that are a part of the training data."""


Source = Annotated[
    Annotated[WeightedFile, Tag("<file>")]
    | Annotated[WeightedTask, Tag("<task>")]
    | Annotated[WeightedStage, Tag("<stage>")],
    Discriminator(tag_of),
]


TrainingData = Annotated[
    Annotated[str, Tag("<stage>"), Names("demonstrations")]
    | Annotated[FileData, Tag("<file>")]
    | Annotated[TaskData, Tag("<task>")]
    | Annotated[list[Source], Tag("<list>"), Field(min_length=1)],
    Discriminator(list_or_tag),
]
"""A stage that left rows, a file, the built-in task, or a list of these with names and weights."""


class Phase(Settings):
    """Other weights for a later part of the training."""

    from_: float = Field(alias="from", gt=0, lt=1, description="Share of the updates that is done when it begins.")
    weights: dict[str, Weight] = Field(description="Source → its weight from then on, of every source.")


class MixedOptions(TrainingOptions):
    """Passes over one data set, or over several that are mixed. Abstract."""

    data: TrainingData = Field(description="Rows.")
    mixture: list[Phase] | None = Field(
        None,
        min_length=1,
        description="Weights that change on the way, of sources in `data`: [{from: 0.8, weights: {web: 1, chat: 3}}].",
    )

    @property
    def weights_by_phase(self) -> list[tuple[float, Mapping[str, float]]]:
        """The share of the updates at which each phase begins, and its weights by source; none of one data set."""
        if not isinstance(self.data, list):
            return []
        first = {source.name: source.weight for source in self.data}
        return [(0.0, first), *((phase.from_, phase.weights) for phase in self.mixture or ())]

    def problems(self) -> Iterator[Problem]:
        """Sources of one name, and phases that do not say what each of them weighs."""
        yield from super().problems()
        if not isinstance(self.data, list):
            if self.mixture is not None:
                yield ("mixture",), "weighs sources; expected data: [{name: ..., path: ..., weight: ...}, ...]"
            return
        yield from name_problems(self.data, ("data",))
        if not any(source.weight for source in self.data):
            yield ("data",), "every weight is 0; expected one source to begin with at least"
        yield from _phase_problems(self.mixture or (), [source.name for source in self.data])


def _phase_problems(phases: Sequence[Phase], names: Sequence[str]) -> Iterator[Problem]:
    for place, (before, phase) in enumerate(itertools.pairwise(phases), 1):
        if phase.from_ <= before.from_:
            yield ("mixture", place, "from"), f"{phase.from_:g} is not after {before.from_:g}; expected rising ones"
    for place, phase in enumerate(phases):
        path = ("mixture", place, "weights")
        for name in phase.weights:
            if name not in names:
                yield path, f"no source {name!r} in `data`.{did_you_mean(name, names)} Sources: {', '.join(names)}"
        missing = [name for name in names if name not in phase.weights]
        if missing:
            yield path, f"no weight for {', '.join(missing)}; expected one of each source, 0 leaves it out"
        if not any(phase.weights.values()):
            yield path, "every weight is 0; expected one that is more"
