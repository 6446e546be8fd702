"""The workflow file as a type: a model and stages, of the kinds that `stages/registry.py` lists, and loops of them."""

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipelines.host.run_folder import stages_before
from pipelines.schema.base import Backend, Problem, Settings, StageConfig, StageName
from pipelines.schema.model import Model
from pipelines.schema.roles import Names
from pipelines.stages.registry import KINDS

if TYPE_CHECKING:
    Stage = StageConfig
else:
    Stage = Annotated[functools.reduce(operator.or_, KINDS.values()), Field(discriminator="kind")]

REPEAT = "repeat"
MOST_ROUNDS = 100


class Repeat(Settings):
    """Repeats stages, each round from the last model of the one before."""

    kind: Literal["repeat"]
    times: int = Field(ge=1, le=MOST_ROUNDS, description="Rounds.")
    from_: Annotated[str | None, Names("policy", else_model=True)] = Field(
        None,
        alias="from",
        min_length=1,
        description="What the first round starts from: stage, model folder or file; default the `model`.",
    )
    stages: dict[StageName, Stage] = Field(
        min_length=1,
        description="Stages of a round by name; one without `from` starts from the round's first model.",
    )


if TYPE_CHECKING:
    Entry = StageConfig | Repeat
else:
    Entry = Annotated[functools.reduce(operator.or_, (*KINDS.values(), Repeat)), Field(discriminator="kind")]


Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Seeds(Settings):
    """Seeds that a workflow runs under, one after the other."""

    values: list[Seed] = Field(min_length=1, description="The seeds, e.g. [17, 18, 19]; a folder each.")
    from_: str | None = Field(
        None,
        alias="from",
        min_length=1,
        description="First stage that runs once a seed, as do all written after it; default all stages.",
    )

    def problems(self) -> Iterator[Problem]:
        """A seed that is named twice."""
        for index, seed in enumerate(self.values):
            if seed in self.values[:index]:
                yield ("values", index), f"the seed {seed} is named twice; expected different ones"


class StateOptions(Settings):
    """What is kept of a stage while it runs, so that one that was stopped or killed goes on where it was."""

    every_seconds: float = Field(
        30.0, ge=0, allow_inf_nan=False, description="Least time from one state to the next; 0 keeps none."
    )
    keep: int = Field(2, ge=1, le=100, description="States that are left on disk while the stage runs.")


class Workflow(Settings):
    """A workflow: a model and the stages, run in the order written."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="Names the run's folder.")
    seed: Seed = Field(0, description="Keys every random draw.")
    seeds: Seeds | None = Field(None, description="Several seeds in one run, {values: [17, 18], from: policy}.")
    backend: Backend | None = Field(None, description="jax, tensorflow or torch; default KERAS_BACKEND.")
    model: Model = Field(None, description="Published name, hub id, folder or file, or {config: {...}} from scratch.")
    state: StateOptions | None = Field(
        None, description="What is kept of a stage while it runs; default {every_seconds: 30, keep: 2}."
    )
    stages: dict[StageName, Stage] = Field(min_length=1, description="Stages by name.")

    def stages_run_once(self) -> list[str]:
        """The stages that run once, under `seed`; the others run once for each of `seeds`."""
        return list(self.stages) if self.seeds is None else stages_before(self.stages, self.seeds.from_)


class WorkflowFile(Workflow):
    """A workflow as a file has it, with loops that are not written out."""

    stages: dict[StageName, Entry] = Field(min_length=1, description="Stages by name.")  # type: ignore[assignment]
