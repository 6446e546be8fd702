"""Runs a workflow in its folder: skips what is finished under an equal key, runs the rest, writes summary and report.

The folder: `workflow.yaml` (resolved), `workflow.lock` (keys and what they were made of), `stages/<name>/`,
`summary.json`, `report.html`; with `seeds`, also `seeds/<seed>/` with the last three. A stage writes into
`stages/.<name>.partial/`, which gets its name when all of it is on disk.
"""

import dataclasses
import itertools
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemma_keras.files import finish_save, place_folder, write_text
from pipelines.host.errors import ConfigError, Stopped
from pipelines.host.files import disk_error, is_disk_error, read_json, write_json
from pipelines.host.progress import duration
from pipelines.host.run_folder import STAGES, WORKFLOW_FILE, folders_with_stages, seed_folder
from pipelines.run import stage_process
from pipelines.run.locking import run_lock
from pipelines.run.planning import PlannedStage, plan
from pipelines.schema.roles import plain
from pipelines.stages import registry
from pipelines.workflow import yaml_reader
from pipelines.workflow.loading import LoadedWorkflow
from pipelines.workflow.schema import Workflow

Say = Callable[[str], None]


def run(
    loaded: LoadedWorkflow, run_folder: Path, in_process: bool = False, quiet: bool = False, say: Say = print
) -> dict[str, Any]:
    """Run a workflow; the same call continues where an earlier one stopped.

    Args:
        loaded: a checked workflow. run_folder: made where it does not exist.
        in_process: run the stages in this process, for debugging; one backend for all.
        quiet: show no progress. say: receives a line for each stage.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        ConfigError: another runner holds the folder, or it can not be written. DiskError: no room. Stopped: a signal
            came.
        Other WorkflowErrors: from the stage; nothing half-written stands in its place.
    """
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, run_folder) from error
        raise ConfigError(
            f"{run_folder}: cannot make the run folder ({error.strerror}); choose another with --out"
        ) from error
    signals = stage_process.StopSignals()
    try:
        with run_lock(run_folder) as lock, signals.installed():
            return _run_locked(loaded, run_folder, in_process, quiet, say, signals, lock)
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, run_folder) from error
        raise


def write_results(folder: Path) -> dict[str, Any]:
    """Build `summary.json` and `report.html` of a run, or of one of its seeds, from its folder; returns the summary."""
    # Here, not above: drawing takes half a second to load, and only a report pays for it.
    from pipelines.report import page

    return page.write(folder, registry.reports())


def _run_locked(
    loaded: LoadedWorkflow,
    run_folder: Path,
    in_process: bool,
    quiet: bool,
    say: Say,
    signals: stage_process.StopSignals,
    lock: int,
) -> dict[str, Any]:
    workflow = loaded.workflow
    _clean(run_folder)
    planned = plan(workflow, loaded.base_folder, run_folder, loaded.user_functions)
    write_text(run_folder / WORKFLOW_FILE, yaml_reader.dump(loaded.as_data()))
    write_json(run_folder / "workflow.lock", _lock_record(workflow, planned))

    def start(partial: Path, backend: str) -> None:
        if in_process:
            stage_process.run_in_process(partial, backend, signals, quiet)
        else:
            stage_process.run_in_subprocess(partial, backend, signals, quiet, lock)

    for seed, stages in itertools.groupby(enumerate(planned, 1), key=lambda one: one[1].seed):
        for number, stage in stages:
            signals.check()
            _run_stage(loaded, stage, run_folder, f"[{number}/{len(planned)}] {stage.label}", start, say)
        if seed is not None:
            write_results(seed_folder(run_folder, seed))
    signals.check()
    return write_results(run_folder)


def _run_stage(
    loaded: LoadedWorkflow,
    stage: PlannedStage,
    run_folder: Path,
    heading: str,
    start: Callable[[Path, str], None],
    say: Say,
) -> None:
    if stage.action == "skip":
        say(f"{heading} ({stage.kind}): finished before, skipped")
        return
    say(f"{heading} ({stage.kind}): on {stage.backend}, because {'; '.join(stage.reasons)}")
    target = run_folder / stage.folder
    partial = _prepare(loaded, stage, target)
    try:
        start(partial, stage.backend)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, Stopped):
            say(f"stopped in stage {stage.label}; finished stages are kept, the same command continues")
        raise
    place_folder(partial, target, stale=("*",))
    say(f"{heading}: done in {duration(read_json(target / 'stage.json')['seconds'])}")


def _prepare(loaded: LoadedWorkflow, stage: PlannedStage, target: Path) -> Path:
    """The folder that the stage writes into, with the `stage.json` that says what to run.

    Its `inputs` are folders relative to the one that the stage's own lies in.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True)
    write_json(
        partial / "stage.json",
        {
            "name": stage.name,
            "kind": stage.kind,
            "key": stage.key,
            "seconds": None,
            "peak_memory_gib": None,
            "peak_memory_of": None,
            "backend": stage.backend,
            "versions": stage.parts["versions"],
            "config": plain(loaded.workflow.stages[stage.name]),
            "inputs": {name: os.path.relpath(folder, stage.folder.parent) for name, folder in stage.inputs.items()},
            "seed": stage.parts["seed"],
            "model": loaded.workflow.model_dump(mode="json", exclude_none=True).get("model"),
            "base_folder": str(loaded.base_folder),
            "user_functions": {
                name: dataclasses.asdict(loaded.user_functions[name]) for name in stage.parts["functions"]
            },
            "key_parts": stage.parts,
        },
    )
    return partial


def _clean(run_folder: Path) -> None:
    """Remove what a killed run left: half-written stages and temporary files; finish a replacement that it had
    begun."""
    for folder in (run_folder, *folders_with_stages(run_folder)):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in (folder / STAGES).glob("*"):
            if path.name.startswith(".") and path.name.endswith(".partial"):
                shutil.rmtree(path)
            else:
                finish_save(path)


def _lock_record(workflow: Workflow, planned: list[PlannedStage]) -> dict[str, Any]:
    def stages_of(seed: int | None) -> dict[str, Any]:
        return {stage.name: {"key": stage.key, **stage.parts} for stage in planned if stage.seed == seed}

    record = {
        "name": workflow.name,
        "seed": workflow.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "stages": stages_of(None),
    }
    if workflow.seeds is not None:
        record["seeds"] = {str(seed): stages_of(seed) for seed in workflow.seeds.values}
    return record
