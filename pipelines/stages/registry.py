"""The kinds of stages: a line each, the name of its folder here. Nothing else outside a kind's folder knows that it
exists.

    <kind>/config.py    one `StageConfig` whose `kind` is the folder's name: fields, roles, problems, produces
    <kind>/run.py       `run(config, context) -> dict of final figures`
    <kind>/memory.py    `needs(config, sized) -> list of Usage`, what it takes of a device; may be missing
    <kind>/report.py    `REPORT`, a `KindReport`: what the kind adds to summary and report; may be missing
    <kind>/methods/registry.py    `METHODS`, the algorithms that its stages choose from by name; may be missing

`config.py`, `memory.py`, `report.py` and `methods/` load no Keras.
"""

import functools
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from pipelines.host.registry import class_in
from pipelines.memory.usage import Sized, Usage
from pipelines.report.parts import KindReport
from pipelines.schema.base import StageConfig
from pipelines.schema.roles import Role
from pipelines.stages.context import StageContext

FOLDERS = (
    "data_filtering",
    "pretraining",
    "instruction_tuning",
    "preference_collection",
    "reward_modeling",
    "policy_optimization",
    "preference_optimization",
    "best_of_n",
    "side_by_side",
    "evaluation",
    "reward_evaluation",
    "benchmark",
    "memorization",
)

_CHOICES = {"methods": "METHODS", "losses": "LOSSES"}
"""Folders within a kind's that hold algorithms, a file each → the mapping of their names in its `registry.py`."""

StageFunction = Callable[[Any, StageContext], dict[str, Any]]
MemoryFunction = Callable[[Any, Sized], list[Usage]]

KINDS: dict[str, type[StageConfig]] = {
    folder: class_in(importlib.import_module(f"pipelines.stages.{folder}.config"), StageConfig) for folder in FOLDERS
}
"""Kind → its configuration."""


def hint_at_kind(name: str) -> str:
    """What a kind that there is not is called here, as a sentence behind a blank; "" where nothing is known."""
    asked = name.lower().replace("-", "_")
    for kind, config in KINDS.items():
        if asked in config.elsewhere:
            also = config.elsewhere[asked]
            return f" Here that is `kind: {kind}`{also and f' with {also}'}."
    return ""


def producers(role: Role) -> list[str]:
    """The kinds whose stages leave behind what a role asks for."""
    asked = role.products
    return [kind for kind, config in KINDS.items() if config.produces and (not asked or config.produces in asked)]


def stage_function(kind: str) -> StageFunction:
    """What runs a stage of a kind. Loads Keras: for the stage's own process."""
    return importlib.import_module(f"pipelines.stages.{kind}.run").run


def memory_function(kind: str) -> MemoryFunction | None:
    """What says how much memory a stage of a kind takes; None where its folder has nothing that does."""
    module = f"pipelines.stages.{kind}.memory"
    return None if importlib.util.find_spec(module) is None else importlib.import_module(module).needs


@functools.cache
def reports() -> tuple[KindReport, ...]:
    """What the kinds add to summary and report, in the order of `FOLDERS`."""
    return tuple(
        importlib.import_module(f"pipelines.stages.{folder}.report").REPORT
        for folder in FOLDERS
        if importlib.util.find_spec(f"pipelines.stages.{folder}.report") is not None
    )


class Algorithm(Protocol):
    """What an algorithm of any kind says of itself."""

    summary: ClassVar[str]
    page: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]


@functools.cache
def algorithms() -> dict[str, tuple[str, type[Algorithm]]]:
    """Name of an algorithm → the kind that has it, and what it says of itself."""
    found = {}
    for kind, (folder, attribute) in itertools.product(FOLDERS, _CHOICES.items()):
        if importlib.util.find_spec(f"pipelines.stages.{kind}.{folder}") is not None:
            registry = importlib.import_module(f"pipelines.stages.{kind}.{folder}.registry")
            found.update({name: (kind, one) for name, one in vars(registry)[attribute].items()})
    return found


AIMS = ("policy_optimization", "preference_optimization")
"""Kinds whose model a run is for, whatever is trained after it to compare with."""
