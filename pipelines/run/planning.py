"""What a run would do: each stage, where it lies, its key, and why it runs or is skipped."""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipelines.host.run_folder import LOCK_FILE, stage_folder
from pipelines.host.states import Done, how_far, partial_of
from pipelines.plugins.sources import UserFunction
from pipelines.run import keys
from pipelines.run.hub_commits import HubCommit, HubCommits
from pipelines.run.hub_names import hub_names
from pipelines.run.results import damage, kept_result, kept_state, read_about
from pipelines.schema.roles import input_stages
from pipelines.workflow.loading import stage_backend
from pipelines.workflow.schema import Workflow


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """What will happen to a stage, and why.

    Args:
        name, kind, backend: of the stage.
        seed: which of the workflow's `seeds` it runs for; None for a stage that runs once.
        folder: where it lies in the run folder. inputs: stage → folder in the run folder, of those that it reads.
        key: hash of `parts`, everything that the result depends on. state_key: what its states stand under.
        action: "run", "skip" where it is finished, or "take" where an earlier result under this key is kept.
        reasons: why it is not skipped; empty where it is.
        unfinished: how far a run of it came that did not finish; None where nothing is kept.
        most: of `unfinished.done` that it can go on from; None for any.
        shorter: where the last state of a shorter stage is kept that it goes on from.
        hub: what it reads from the hub, by the dotted key that names it.
    """

    name: str
    kind: str
    backend: str
    seed: int | None
    folder: Path
    inputs: dict[str, Path]
    key: str
    state_key: str
    parts: dict[str, Any]
    action: Literal["run", "skip", "take"]
    reasons: list[str]
    unfinished: Done | None = None
    most: int | None = None
    shorter: Path | None = None
    hub: dict[str, HubCommit] = dataclasses.field(default_factory=dict)

    @property
    def resumes(self) -> bool:
        """Whether it goes on from what is kept."""
        return self.action == "run" and _fits(self.unfinished, self.state_key, self.most)

    @property
    def label(self) -> str:
        """What it is called on the terminal."""
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"


def plan(
    workflow: Workflow,
    base_folder: Path,
    run_folder: Path,
    user_functions: Mapping[str, UserFunction] = types.MappingProxyType({}),
    lock: Path | None = None,
) -> list[PlannedStage]:
    """What `run` would do in this folder, in its order: the stages that run once, then seed after seed the others.

    A stage of a seed is the stage of a workflow with that `seed`, its name the same, so that it draws the same. It
    reads the stages of its own seed and those that run once.

    Args:
        lock: whose commits of the hub stand, default the run folder's.

    Raises:
        ConfigError: a backend is missing. DataError: a data file can not be read.
    """
    once: dict[str, PlannedStage] = {}
    commits = HubCommits(lock or run_folder / LOCK_FILE)
    for name in workflow.stages_run_once():
        once[name] = _planned(workflow, name, None, once, base_folder, run_folder, user_functions, commits)
    planned = list(once.values())
    for seed in workflow.seeds.values if workflow.seeds else ():
        of_seed, stages = workflow.model_copy(update={"seed": seed}), {**once}
        for name in workflow.stages:
            if name not in once:
                stages[name] = _planned(of_seed, name, seed, stages, base_folder, run_folder, user_functions, commits)
                planned.append(stages[name])
    return planned


def _planned(
    workflow: Workflow,
    name: str,
    seed: int | None,
    earlier: dict[str, PlannedStage],
    base_folder: Path,
    run_folder: Path,
    user_functions: Mapping[str, UserFunction],
    commits: HubCommits,
) -> PlannedStage:
    config, backend, folder = workflow.stages[name], stage_backend(workflow, name), stage_folder(Path(), name, seed)
    input_keys = {one.name: one.key for one in earlier.values()}
    hub = {dotted: commits.of(one) for dotted, one in hub_names(workflow, name, base_folder).items()}
    parts = keys.key_parts(workflow, name, backend, input_keys, base_folder, user_functions, hub)
    key = keys.key_of(parts)
    reasons = _reasons(run_folder / folder, key, parts)
    inputs = {stage: earlier[stage].folder for stage in input_stages(config, set(workflow.stages))}
    action: Literal["run", "skip", "take"] = "run" if reasons else "skip"
    if reasons and kept_result(run_folder, name, key) is not None:
        action = "take"
    length, most = config.lasts() or (None, None)
    state_key = keys.state_key(parts, length)
    unfinished, shorter = how_far(partial_of(run_folder / folder)), kept_state(run_folder, name, state_key)
    longest = None if shorter is None else how_far(shorter)
    if _fits(unfinished, state_key, most) or not _fits(longest, state_key, most):
        shorter = None
    else:
        unfinished = longest
    if unfinished is not None and most is not None:
        unfinished = dataclasses.replace(unfinished, of=most)
    return PlannedStage(
        name, config.kind, backend, seed, folder, inputs, key, state_key, parts, action, reasons, unfinished, most,
        shorter, hub,
    )  # fmt: skip


def _fits(unfinished: Done | None, state_key: str, most: int | None) -> bool:
    return unfinished is not None and unfinished.key == state_key and (most is None or unfinished.done <= most)


def _reasons(folder: Path, key: str, parts: keys.KeyParts) -> list[str]:
    if not folder.is_dir():
        return ["missing"]
    about = read_about(folder)
    if not about or not (folder / "final.json").is_file():
        return ["stage.json or final.json is missing or no object"]
    if about.get("key") != key:
        old = about.get("key_parts")
        return keys.changes(old if isinstance(old, dict) else {}, parts) or ["its key changed"]
    found = damage(folder)
    return [] if found is None else [found]
