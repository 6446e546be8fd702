"""Whether the names in a workflow make sense together, and the settings of a stage. Knows roles, and no kind of stage.
Imports no Keras."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.formats import FILE_SUFFIXES, MODEL_FILES
from gemma_keras.checkpoints.hub import is_on_hub
from gemma_keras.checkpoints.resolve import check_name
from pipelines.host.paths import adapter_problem, find_model, find_path
from pipelines.host.spelling import did_you_mean
from pipelines.schema.base import Problem, Settings, StageConfig, Use
from pipelines.schema.functions import FUNCTIONS
from pipelines.schema.gates import gate
from pipelines.schema.model import ScratchModel
from pipelines.schema.roles import (
    DATA,
    FUNCTION_PREFIX,
    GOLD,
    REWARD_MODEL_PREFIX,
    Reference,
    blocks,
    references,
    references_of,
    uses_workflow_model,
)
from pipelines.stages.registry import KINDS, producers
from pipelines.workflow.schema import Workflow

READABLE_AS: Mapping[Use, Sequence[Use]] = {
    "text": ("text", "instruction"),
    "instruction": ("instruction", "prompt"),
    "prompt": ("prompt",),
    "preference": ("preference", "prompt"),
}
"""What rows were read as → what they may be read as again."""
MORE_FUNCTIONS = f"with settings, {{function: NAME, ...}}: {', '.join(FUNCTIONS)}; one of your own by --plugin FILE.py"


def reference_problems(
    stage: str,
    kind: str,
    data: Mapping[str, Any],
    kinds: Mapping[str, str],
    base_folder: Path,
    functions: Collection[str] = (),
) -> list[Problem]:
    """What is wrong with the names of stages, models and functions in a stage.

    Args:
        stage: its name. kind: a known one.
        data: its settings as written; others of them may be wrong.
        kinds: kind of every stage of the workflow, in order.
        base_folder: where relative paths start.
        functions: names of a user's own.
    """
    names = list(kinds)
    earlier = names[: names.index(stage)]
    found: list[Problem] = []
    for reference in references(KINDS[kind], data):
        if reference.is_function:
            found += _function_problems(reference, functions)
        else:
            found += _reference_problems(reference, stage, kinds, earlier, base_folder, functions)
    return found


def gate_problems(stage: str, config: StageConfig, kinds: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with a stage's gates; whether there is such a figure shows when the earlier stage is finished.

    Args:
        kinds: kind of every stage of the workflow, in order.
    """
    earlier = list(kinds)[: list(kinds).index(stage)]
    for name, condition in (config.require or {}).items():
        try:
            found = gate(name, condition)
        except ValueError as error:
            yield ("require", name), str(error)
            continue
        if found.stage not in earlier:
            hint = did_you_mean(found.stage, earlier)
            known = ", ".join(earlier) or "there is none"
            yield ("require", name), f"no earlier stage {found.stage!r}.{hint} Expected one of: {known}"


def rows_problems(config: StageConfig, stages: Mapping[str, StageConfig]) -> Iterator[Problem]:
    """A stage that reads the rows of another as what they are not, which would show when that one has run.

    Args:
        stages: those that are right in themselves.
    """
    for reference in references_of(config):
        left = stages[reference.target].leaves() if reference.target in stages else None
        if reference.role.product not in DATA or left is None or len(config.reads()) != 1:
            continue
        (use,) = config.reads()
        if use not in READABLE_AS[left]:
            yield (
                reference.path,
                f"stage {reference.target!r} leaves rows with `use: {left}`, and {config.kind} reads each as {use}; "
                f"expected `use: {use}` there",
            )


def settings_problems(config: Settings) -> list[Problem]:
    """What settings, and all that are nested in them, say is wrong between them."""
    return [
        ((*path, *place), message)
        for path, block in blocks(config)
        if isinstance(block, Settings)
        for place, message in block.problems()
    ]


def _function_problems(reference: Reference, own: Collection[str]) -> Iterator[Problem]:
    name, shipped = reference.name.removeprefix(FUNCTION_PREFIX), reference.role.functions
    if reference.name in shipped or name in own or (name in shipped and name != GOLD):
        return
    known = [*shipped, *own, f"{REWARD_MODEL_PREFIX}<stage>"]
    known = known if reference.role.is_prefixed else known[:-1]
    what = "rater" if reference.role.is_prefixed else "reward function"
    hint = did_you_mean(name, known)
    yield reference.path, f"unknown {what} {reference.name!r}.{hint} Known: {', '.join(known)}; {MORE_FUNCTIONS}"


def _reference_problems(
    reference: Reference,
    stage: str,
    kinds: Mapping[str, str],
    earlier: Sequence[str],
    base_folder: Path,
    own: Collection[str],
) -> Iterator[Problem]:
    target, path, role = reference.target, reference.path, reference.role
    makers = producers(role)
    if target in earlier:
        if kinds[target] not in makers and kinds[target] in KINDS:
            expected = " or ".join(makers)
            yield path, f"stage {target!r} is of kind {kinds[target]}; expected a stage of kind {expected}"
        return
    if target in kinds:
        reason = "is this stage itself" if target == stage else "comes later"
        yield path, f"stage {target!r} {reason}; expected an earlier stage: {', '.join(earlier) or 'there is none'}"
        return
    choices = [other for other in earlier if kinds[other] in makers]
    if not role.is_model:
        yield path, f"no stage {target!r}.{did_you_mean(target, choices)} For a file write data: {{path: {target}}}"
        return
    found = find_path(target, base_folder)
    if found is not None and find_model(found) is not None:
        return
    if found is not None:
        problem = f"{target!r} has no model: expected config.json, or model/config.json, in {found}"
        yield path, adapter_problem(target, found) or problem
        return
    if role.on_hub and is_on_hub(target):
        return
    functions = () if role.is_prefixed or not role.functions else (*role.functions, *own)
    also = f", or a function: {', '.join(functions)}; {MORE_FUNCTIONS}" if functions else ""
    hint = did_you_mean(target, [*choices, *functions])
    # `runs/quickstart/stages/sft`, `runs/quickstart/seeds/17/stages/policy`: what another workflow leaves behind.
    parts = Path(target).parts
    if "stages" in parts[1:]:
        inner = "seeds" if "seeds" in parts[1:] else "stages"
        hint = f" Run the workflow {parts[parts.index(inner) - 1]!r} first, it makes that folder."
    yield (
        path,
        f"{target!r} is neither an earlier stage nor a model folder{' nor a name on the hub' if role.on_hub else ''}."
        f"{hint} Stages: {', '.join(choices) or 'none'}{also}",
    )


def seeds_problems(seeds: Any, stages: Collection[str]) -> list[Problem]:
    """What is wrong with where a workflow's seeds begin.

    Args:
        seeds: as written; others of its settings may be wrong. stages: names of the workflow's stages, in order.
    """
    first = seeds.get("from") if isinstance(seeds, Mapping) else None
    if not isinstance(first, str) or first in stages:
        return []
    return [(("from",), f"no stage {first!r}.{did_you_mean(first, stages)} Stages: {', '.join(stages) or 'none'}")]


def model_problems(workflow: Workflow, base_folder: Path) -> list[Problem]:
    """What is wrong with the workflow's model, and with starting from it."""
    model = workflow.model
    starting = {name: config for name, config in workflow.stages.items() if uses_workflow_model(config)}
    if model is None:
        return [
            (("stages", name), "starts from no model: give the stage `from`, or the workflow a `model`")
            for name in starting
        ]
    if isinstance(model, ScratchModel):
        return _scratch_problems(model, starting)
    found = find_path(model, base_folder)
    if found is not None:
        if find_model(found) is None:
            return [(("model",), adapter_problem(model, found) or f"{model!r} has no model: expected {MODEL_FILES}")]
        return []
    if model.startswith((".", "/", "~")) or model.endswith(FILE_SUFFIXES) and model.count("/") < 2:
        return [(("model",), f"no folder or file {model!r} (relative paths start from {base_folder})")]
    try:
        check_name(model)
    except CheckpointError as error:
        return [(("model",), str(error))]
    return []


def _scratch_problems(model: ScratchModel, starting: Mapping[str, StageConfig]) -> list[Problem]:
    found: list[Problem] = [
        (("stages", name, *path), message)
        for name, config in starting.items()
        for path, message in config.problems_from_scratch()
    ]
    return found + [(("model", *path), message) for path, message in settings_problems(model)]
