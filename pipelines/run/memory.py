"""What each stage of a workflow needs of a device's memory, and which of its keys help where that is too much.

Sizes come from the workflow's `model` by name, from a model's `config.json` or GGUF header, and along `from` from the
stages before; no weight is read and no backend loaded.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.sizes import config_of
from gemma_keras.config import GemmaConfig
from gemma_keras.errors import InputError
from pipelines.host.errors import ConfigError
from pipelines.host.paths import find_model, find_path
from pipelines.memory.usage import GIB, Sized, Usage, largest
from pipelines.schema.base import Lora, StageConfig
from pipelines.schema.model import ScratchModel
from pipelines.schema.roles import references_of
from pipelines.stages import registry
from pipelines.workflow.loading import LoadedWorkflow, stage_backend

SPARE = 0.15
"""Of a device's memory that a plan leaves free: for what an allocator loses to fragments, and for the plan's errors."""
SUGGESTED_RANK = 16
KEEP_RESULT = ("remat", "micro_batch_size", "batch_size")
"""Keys that change no result; `batch_size` is only offered where it means responses that are sampled at once."""
LEAST_SAVED = 0.01
"""A key that saves less of a stage's memory than this is not named."""


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A key's other value, and what the stage then needs.

    Args:
        text: as it is written in the workflow. total: bytes.
        keeps_result: whether the stage still computes the same, in another order or more slowly.
    """

    text: str
    total: float
    keeps_result: bool


@dataclasses.dataclass(frozen=True)
class StageMemory:
    """One stage.

    Args:
        stage: its name. usages: its moments; none where its kind says nothing of memory.
    """

    stage: str
    usages: list[Usage]

    @property
    def peak(self) -> Usage:
        """The moment that takes most."""
        return largest(self.usages)


def plan_memory(loaded: LoadedWorkflow) -> list[StageMemory]:
    """Every stage of a workflow.

    Raises:
        ConfigError: a model whose sizes cannot be read, with its place in the file.
    """
    return [StageMemory(name, _needs(loaded, name, config)) for name, config in loaded.workflow.stages.items()]


def shortages(loaded: LoadedWorkflow, stages: Collection[str], there: int) -> list[str]:
    """Stages that cannot hold what they train and what stands beside it, a line each. Models whose sizes are not known
    before they are fetched are passed over.

    Args:
        stages: names. there: bytes of memory.
    """
    lines = []
    for name in stages:
        try:
            usages = _needs(loaded, name, loaded.workflow.stages[name], may_fetch=False)
        except ConfigError:
            continue
        needed = max((one.standing for one in usages), default=0.0)
        if needed > there:
            lines.append(
                f"{loaded.where(('stages', name))}: {name}: weights, gradients, moments and frozen models alone need "
                f"{needed / GIB:,.1f} GiB; this machine has {there / GIB:,.1f}. Set lora or a smaller model; "
                "`gemma-keras plan FILE --memory` says what each key saves"
            )
    return lines


def remedies(loaded: LoadedWorkflow, stage: str, room: float) -> list[Remedy]:
    """Changes of one key each that make a stage smaller: first those that keep its result, and of each those that save
    most.

    Args:
        stage: its name. room: bytes that it may take; a size is halved until the stage fits.
    """
    config = loaded.workflow.stages[stage]
    before = largest(_needs(loaded, stage, config)).total

    def total(changes: dict[str, Any]) -> float:
        return largest(_needs(loaded, stage, config.model_copy(update=changes))).total

    found = []
    for choices in filter(None, _choices(dict(config))):
        sizes = [(choice, total(choice.changes)) for choice in choices]
        fitting = [pair for pair in sizes if pair[1] <= room]
        keeps_result = next(iter(choices[0].changes)) in KEEP_RESULT
        # Where none fits, the smallest that costs time alone; of what changes the result, the first step.
        choice, after = fitting[0] if fitting else sizes[-1 if keeps_result else 0]
        if after < (1 - LEAST_SAVED) * before:
            found.append(Remedy(choice.text, after, keeps_result))
    return sorted(found, key=lambda remedy: (not remedy.keeps_result, remedy.total))


def cannot_be_tuned_in_full(loaded: LoadedWorkflow, stage: str, room: float) -> bool:
    """Whether weights, gradients, moments and frozen models alone, which an adapter alone makes smaller, take more."""
    config = loaded.workflow.stages[stage]
    settings = dict(config)
    if "lora" not in settings or settings["lora"] is not None:
        return False
    least = config.model_copy(update={"micro_batch_size": 1, "remat": "block", "dtype": "mixed_bfloat16"})
    peak = max(_needs(loaded, stage, least), key=lambda one: one.gradients)
    return peak.standing > room


@dataclasses.dataclass(frozen=True)
class _Choice:
    text: str
    changes: dict[str, Any]


def _choices(settings: dict[str, Any]) -> Iterator[list[_Choice]]:
    """What could be changed, a list a key: of several values those that cost least first."""
    trains = "remat" in settings
    if trains and settings["remat"] == "none":
        yield [_Choice("remat: block", {"remat": "block"})]
    if trains:
        responses = settings.get("batch_size") or settings["prompts_per_step"] * settings["samples_per_prompt"]
        yield _halved("micro_batch_size", min(settings["micro_batch_size"] or responses, responses))
        if settings["lora"] is None:
            lora = Lora(rank=SUGGESTED_RANK)
            yield [_Choice(f"lora: {{rank: {SUGGESTED_RANK}}}, dtype: bfloat16", {"lora": lora, "dtype": "bfloat16"})]
    elif "batch_size" in settings:
        yield _halved("batch_size", settings["batch_size"])
    for key in ("prompts_per_step", "max_new_tokens"):
        if key in settings:
            yield _halved(key, settings[key])
    if settings.get("dtype") == "float32":
        yield [_Choice("dtype: mixed_bfloat16", {"dtype": "mixed_bfloat16"})]
    elif settings.get("dtype") == "mixed_bfloat16" and trains and settings["lora"] is not None:
        yield [_Choice("dtype: bfloat16", {"dtype": "bfloat16"})]
    if settings.get("quantize_reward_model", "") is None:
        yield [_Choice("quantize_reward_model: int8", {"quantize_reward_model": "int8"})]
    if "max_length" in settings:
        yield _halved("max_length", settings["max_length"], settings.get("max_new_tokens", 1) + 1)


def _halved(key: str, value: int, least: int = 1) -> list[_Choice]:
    values = []
    while value // 2 >= least:
        value //= 2
        values.append(value)
    return [_Choice(f"{key}: {one}", {key: one}) for one in values]


def _needs(loaded: LoadedWorkflow, name: str, config: StageConfig, may_fetch: bool = True) -> list[Usage]:
    function = registry.memory_function(config.kind)
    if function is None:
        return []
    sizes = functools.partial(_sizes, loaded, name, may_fetch=may_fetch)
    return function(config, Sized(stage_backend(loaded.workflow, name), sizes))


def _sizes(loaded: LoadedWorkflow, stage: str, name: str | None, may_fetch: bool = True) -> GemmaConfig:
    """The sizes of a model that a stage names, or of the workflow's where it names none."""
    workflow, source, path = loaded.workflow, name, _place(loaded, stage, name)
    while source in workflow.stages:
        # A stage's model has the sizes, as it has the tokenizer, of the one that it starts from.
        encoding = workflow.stages[source].encoding()
        path = ("stages", source)
        source = None if encoding is None else encoding.model
    if source is None:
        if isinstance(workflow.model, ScratchModel):
            return workflow.model.gemma_config()
        source, path = workflow.model, ("model",)
    found = find_path(source or "", loaded.base_folder)
    place = source if found is None else find_model(found) or found
    try:
        return config_of(str(place), may_fetch)
    except (CheckpointError, InputError, ModuleNotFoundError) as error:
        raise ConfigError(f"{loaded.where(path)}: the sizes of {source!r} are not known: {error}") from error


def _place(loaded: LoadedWorkflow, stage: str, name: str | None) -> tuple[str | int, ...]:
    places = [one.path for one in references_of(loaded.workflow.stages[stage]) if one.target == name]
    return ("stages", stage, *(places[0] if places else ()))
