"""What a run would do: each stage, where it lies, its key, and why it runs or is skipped."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from pipelines.host.files import read_json
from pipelines.run import keys
from pipelines.schema.roles import input_stages
from pipelines.workflow.loading import stage_backend
from pipelines.workflow.schema import Workflow


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """What will happen to a stage, and why.

    Args:
        name, kind, backend: of the stage.
        folder: where it lies in the run folder. inputs: stage → folder in the run folder, of those that it reads.
        key: hash of `parts`, everything that the result depends on.
        action: "run" or "skip". reasons: why it is run; empty where it is skipped.
    """

    name: str
    kind: str
    backend: str
    folder: Path
    inputs: dict[str, Path]
    key: str
    parts: dict[str, Any]
    action: Literal["run", "skip"]
    reasons: list[str]


def plan(workflow: Workflow, base_folder: Path, run_folder: Path) -> list[PlannedStage]:
    """What `run` would do in this folder; changes nothing.

    Raises:
        ConfigError: a backend is missing. DataError: a data file can not be read.
    """
    planned: dict[str, PlannedStage] = {}
    for name in workflow.stages:
        planned[name] = _planned(workflow, name, planned, base_folder, run_folder)
    return list(planned.values())


def _planned(
    workflow: Workflow, name: str, earlier: dict[str, PlannedStage], base_folder: Path, run_folder: Path
) -> PlannedStage:
    config, backend, folder = workflow.stages[name], stage_backend(workflow, name), Path("stages", name)
    parts = keys.key_parts(workflow, name, backend, {one.name: one.key for one in earlier.values()}, base_folder)
    key = keys.key_of(parts)
    reasons = _reasons(run_folder / folder, key, parts)
    inputs = {stage: earlier[stage].folder for stage in input_stages(config, set(workflow.stages))}
    return PlannedStage(name, config.kind, backend, folder, inputs, key, parts, "run" if reasons else "skip", reasons)


def _reasons(folder: Path, key: str, parts: keys.KeyParts) -> list[str]:
    if not (folder / "stage.json").is_file() or not (folder / "final.json").is_file():
        return ["missing"]
    about = read_json(folder / "stage.json")
    if about.get("key") == key:
        return []
    return keys.changes(about.get("key_parts") or {}, parts) or ["its key changed"]
