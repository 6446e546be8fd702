"""The workflow file as a type: a model and the stages, of the kinds that `stages/registry.py` lists."""

import functools
import operator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipelines.schema.base import Backend, Settings, StageConfig, StageName
from pipelines.schema.model import Model
from pipelines.stages.registry import KINDS

if TYPE_CHECKING:
    Stage = StageConfig
else:
    Stage = Annotated[functools.reduce(operator.or_, KINDS.values()), Field(discriminator="kind")]


class Workflow(Settings):
    """A workflow file: a model and the stages, run in the order written."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="Names the run's folder.")
    seed: int = Field(0, ge=0, lt=2**63, description="Keys every random draw.")
    backend: Backend | None = Field(None, description="jax, tensorflow or torch; default KERAS_BACKEND.")
    model: Model = Field(None, description="Published size, hub id, folder or file, or {config: {...}} from scratch.")
    stages: dict[StageName, Stage] = Field(min_length=1, description="Stages by name.")
