"""Which stages a stage reads from, and whether the names in a workflow make sense together. Imports no Keras."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from gemma_keras.config import PUBLISHED_SIZES, size_name
from pipelines import configs
from pipelines.configs import FUNCTION_PREFIX, REWARD_FUNCTIONS, REWARD_MODEL_PREFIX, FileData, StageConfig, TaskData, Workflow
from pipelines.paths import find_model, find_path
from pipelines.schema_errors import did_you_mean
from pipelines.yaml_reader import KeyPath

Role = Literal["policy", "reward_model", "reward", "rater", "data"]
Problem = tuple[KeyPath, str]

PRODUCERS: dict[Role, tuple[str, ...]] = {
    "policy": ("pretraining", "instruction_tuning", "policy_optimization"),
    "reward_model": ("reward_modeling",),
    "reward": ("reward_modeling",),
    "rater": ("reward_modeling",),
    "data": ("preference_collection",),
}
"""Which kinds write what a role reads."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """A name inside a stage that points to another stage, a folder or a function.

    Args:
        path: keys below the stage, e.g. ("reward", 0, "reward").
        name: as written.
        role: what it must be.
    """

    path: KeyPath
    name: str
    role: Role

    @property
    def target(self) -> str:
        """The stage or folder meant, without `reward_model:`."""
        return self.name.removeprefix(REWARD_MODEL_PREFIX)

    @property
    def is_function(self) -> bool:
        """True where a rater, judge or reward is a function or the gold reward, so that it names no stage."""
        if self.role == "rater":
            return not self.name.startswith(REWARD_MODEL_PREFIX)
        return self.role == "reward" and self.name.removeprefix(FUNCTION_PREFIX) in REWARD_FUNCTIONS


def references(config: StageConfig) -> list[Reference]:
    """All references of a stage, in the order of its keys."""
    return list(_references(config))


def partial_config(kind: str, data: dict[str, Any]) -> StageConfig:
    """Only the references of a stage whose other settings are wrong, so that wrong names in it are reported in the same go."""
    fields: dict[str, Any] = {"from_": None, "compare": [], "judge": "gold", "rater": "gold", "reference": None, "reward": [], "data": None}
    for key in ("judge", "rater", "reference", "reward", "data", "from"):
        if isinstance(data.get(key), str):
            fields["from_" if key == "from" else key] = data[key]
    if isinstance(data.get("compare"), list) and all(isinstance(name, str) for name in data["compare"]):
        fields["compare"] = data["compare"]
    parts = data.get("reward")
    if isinstance(parts, list) and all(isinstance(part, dict) and isinstance(part.get("reward"), str) for part in parts):
        fields["reward"] = [configs.WeightedReward.model_construct(reward=part["reward"], weight=1.0) for part in parts]
    return configs.KINDS[kind].model_construct(**fields)


def input_stages(config: StageConfig, stage_names: set[str]) -> list[str]:
    """The stages whose folders a stage reads, each once."""
    named = [reference.target for reference in references(config) if not reference.is_function and reference.target in stage_names]
    return list(dict.fromkeys(named))


def _references(config: StageConfig) -> Iterator[Reference]:
    if isinstance(config, configs.ModelStage) and config.from_ is not None:
        yield Reference(("from",), config.from_, "policy")
    if isinstance(config, configs.Evaluation):
        for index, name in enumerate(config.compare):
            yield Reference(("compare", index), name, "policy")
        yield Reference(("judge",), config.judge, "rater")
        if config.reference is not None:
            yield Reference(("reference",), config.reference, "policy")
    if isinstance(config, configs.PreferenceCollection):
        yield Reference(("rater",), config.rater, "rater")
    if isinstance(config, configs.PolicyOptimization):
        if isinstance(config.reward, str):
            yield Reference(("reward",), config.reward, "reward")
        else:
            for index, part in enumerate(config.reward):
                yield Reference(("reward", index, "reward"), part.reward, "reward")
    data = getattr(config, "data", None)
    if isinstance(data, str):
        yield Reference(("data",), data, "data")


def stage_problems(name: str, config: StageConfig, kinds: dict[str, str], earlier: list[str], base_folder: Path) -> list[Problem]:
    """What is wrong with a stage's references and with settings that must fit each other.

    Args:
        name: the stage. config: its settings.
        kinds: kind of every stage of the workflow. earlier: names of the stages before this one.
        base_folder: where relative paths start.
    """
    found = reference_problems(name, config, kinds, earlier, base_folder)
    return found + list(_function_problems(config)) + list(_settings_problems(config))


def reference_problems(name: str, config: StageConfig, kinds: dict[str, str], earlier: list[str], base_folder: Path) -> list[Problem]:
    """As `stage_problems`, for the names of stages and folders alone."""
    return [problem for reference in references(config) for problem in _reference_problem(reference, name, kinds, earlier, base_folder)]


def _reference_problem(reference: Reference, stage: str, kinds: dict[str, str], earlier: list[str], base_folder: Path) -> Iterator[Problem]:
    target, path = reference.target, reference.path
    if reference.is_function:
        return
    if target in earlier:
        if kinds[target] not in PRODUCERS[reference.role] and kinds[target] in configs.KINDS:
            expected = " or ".join(PRODUCERS[reference.role])
            yield path, f"stage {target!r} is of kind {kinds[target]}; expected a stage of kind {expected}"
        return
    if target in kinds:
        reason = "is this stage itself" if target == stage else "comes later"
        yield path, f"stage {target!r} {reason}; expected an earlier stage: {', '.join(earlier) or 'there is none'}"
        return
    choices = [other for other in earlier if kinds[other] in PRODUCERS[reference.role]]
    if reference.role == "data":
        yield path, f"no stage {target!r}.{did_you_mean(target, choices)} For a file write data: {{path: {target}}}"
        return
    found = find_path(target, base_folder)
    if found is not None and find_model(found) is not None:
        return
    if found is not None:
        yield path, f"{target!r} has no model: expected config.json, or model/config.json, in {found}"
        return
    also = f", or a function: {', '.join(REWARD_FUNCTIONS)}" if reference.role == "reward" else ""
    known = [*choices, *REWARD_FUNCTIONS] if reference.role == "reward" else choices
    hint = did_you_mean(target, known)
    # `runs/quickstart/stages/sft`: what another workflow leaves behind.
    parts = Path(target).parts
    if "stages" in parts[1:]:
        hint = f" Run the workflow {parts[parts.index('stages') - 1]!r} first, it makes that folder."
    yield path, f"{target!r} is neither an earlier stage nor a model folder.{hint} Stages: {', '.join(choices) or 'none'}{also}"


def _function_problems(config: StageConfig) -> Iterator[Problem]:
    data = getattr(config, "data", None)
    for reference in references(config):
        if reference.role == "rater" and reference.is_function:
            function = reference.name.removeprefix(FUNCTION_PREFIX)
            if reference.name == "gold":
                if not isinstance(data, TaskData):
                    yield reference.path, "the gold reward scores the built-in task only; expected data: {task: ...}, or another rater"
                continue
            if function not in REWARD_FUNCTIONS:
                known = ["gold", *REWARD_FUNCTIONS, f"{REWARD_MODEL_PREFIX}<stage>"]
                yield reference.path, f"unknown rater {reference.name!r}.{did_you_mean(function, known)} Known: {', '.join(known)}"
        elif not reference.is_function:
            continue
        if reference.name.endswith("exact_answer") and isinstance(data, FileData) and data.answer is None:
            yield reference.path, "exact_answer needs the known answers; name their column: data: {..., answer: COLUMN}"


def _settings_problems(config: StageConfig) -> Iterator[Problem]:
    if isinstance(config, configs.TrainingOptions) and (config.micro_batch_size or 1) > config.batch_size:
        yield ("micro_batch_size",), f"{config.micro_batch_size} is over batch_size {config.batch_size}; it is a part of it"
    if isinstance(config, configs.OptimizerOptions):
        yield from _training_problems(config)
    if isinstance(config, configs.PreferenceCollection | configs.PolicyOptimization | configs.Evaluation):
        if config.max_new_tokens >= config.max_length:
            yield ("max_new_tokens",), f"{config.max_new_tokens} leaves no room for a prompt; max_length is {config.max_length}"
    if isinstance(config, configs.PolicyOptimization):
        if config.algorithm == "rloo" and config.samples_per_prompt < 2:
            yield ("samples_per_prompt",), "rloo compares the samples of a prompt; expected at least 2, or algorithm: reinforce"
        if config.gold == "task" and not isinstance(config.data, TaskData):
            yield ("gold",), "the gold reward scores the built-in task only; expected data: {task: ...}, or leave `gold` out"
    if isinstance(config, configs.Evaluation) and len(set(config.compare)) < len(config.compare):
        yield ("compare",), f"a policy is named twice: {', '.join(config.compare)}"
    if isinstance(config, configs.PreferenceCollection) and config.export and config.ratings is not None:
        yield ("export",), "`export` and `ratings` exclude each other: first export the pairs, then run again with the ratings"


def _training_problems(config: configs.OptimizerOptions) -> Iterator[Problem]:
    if config.lora is None:
        if config.dtype == "bfloat16":
            yield ("dtype",), "bfloat16 weights lose small updates to rounding; expected mixed_bfloat16, or an adapter over them: lora"
        return
    try:
        config.lora.options()
    except ValueError as error:
        yield ("lora", "targets"), str(error)
    if isinstance(config, configs.PolicyOptimization) and config.lora.dropout > 0:
        advice = "expected 0: responses must be scored with the probabilities they were sampled with"
        yield ("lora", "dropout"), f"{config.lora.dropout:g} in policy optimization; {advice}"


def model_problems(workflow: Workflow, base_folder: Path) -> list[Problem]:
    """What is wrong with the workflow's model."""
    model = workflow.model
    starting = {name: config for name, config in workflow.stages.items() if _starts_from_model(config)}
    if model is None:
        return [(("stages", name), "starts from no model: give the stage `from`, or the workflow a `model`") for name in starting]
    if isinstance(model, configs.ScratchModel):
        return _scratch_problems(model, starting)
    found = find_path(model, base_folder)
    if found is not None:
        if find_model(found) is None:
            return [(("model",), f"{model!r} has no model: expected a folder with config.json, or a .gguf file")]
        return []
    if size_name(model) is not None:
        return [(("model",), f"{model!r} is a size without weights; name a hub id such as google/gemma-3-270m, a folder or a .gguf file")]
    if model.startswith((".", "/", "~")) or model.endswith(".gguf"):
        return [(("model",), f"no folder or file {model!r} (relative paths start from {base_folder})")]
    if model.count("/") != 1:
        hint = did_you_mean(model, PUBLISHED_SIZES)
        return [(("model",), f"unknown model {model!r}.{hint} Expected a hub id, a folder, a .gguf file or {{config: {{...}}}}")]
    return []


def _starts_from_model(config: StageConfig) -> bool:
    return isinstance(config, configs.ModelStage) and config.from_ is None


def _scratch_problems(model: configs.ScratchModel, starting: Mapping[str, StageConfig]) -> list[Problem]:
    found: list[Problem] = [
        (("stages", name), f"{config.kind} cannot start from random weights; give it `from`, e.g. a pretraining stage")
        for name, config in starting.items()
        if config.kind != "pretraining"
    ]
    found += [
        (("stages", name, "lora"), "an adapter over random weights learns next to nothing; leave it out, or start from a model")
        for name, config in starting.items()
        if isinstance(config, configs.Pretraining) and config.lora is not None
    ]
    rows, pieces = model.config.vocabulary_size, model.tokenizer.vocabulary_size
    if rows is not None and rows < pieces:
        place = ("model", "config", "vocabulary_size")
        found.append((place, f"{rows} rows of the embedding are fewer than the tokenizer's {pieces} pieces; leave it out, or raise it"))
    try:
        model.gemma_config()
    except (ValueError, TypeError) as error:
        found.append((("model", "config"), str(error)))
    return found
