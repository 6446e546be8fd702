"""Runs a workflow in its folder: skips what is finished under an equal key, runs the rest, writes summary and report.

The folder: `workflow.yaml` (resolved), `workflow.lock` (keys and what they were made of, commits of the hub),
`stages/<name>/`, `summary.json`, `report.html`; with `seeds`, also `seeds/<seed>/` with the last three. A stage writes
into `stages/.<name>.partial/`, which gets its name when all of it is on disk; until then its `state/` holds what the
next start goes on from.
"""

import itertools
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gemma_keras.files import finish_save, write_text
from pipelines.host.errors import ConfigError, GateError
from pipelines.host.files import disk_error, is_disk_error, write_json
from pipelines.host.process_memory import total_memory
from pipelines.host.run_folder import GATE_FILE, LOCK_FILE, STAGES, WORKFLOW_FILE, folders_with_stages, seed_folder
from pipelines.run import frozen, hub_commits, keys, results, stage_process, unfinished
from pipelines.run.locking import run_lock
from pipelines.run.memory import shortages
from pipelines.run.planning import PlannedStage, plan
from pipelines.run.stage_runner import Say, StageRunner
from pipelines.run.stop_signals import GRACE_SECONDS, StopSignals
from pipelines.stages import registry
from pipelines.workflow import yaml_reader
from pipelines.workflow.loading import LoadedWorkflow
from pipelines.workflow.schema import Workflow

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def run(
    loaded: LoadedWorkflow, run_folder: Path, in_process: bool = False, quiet: bool = False, say: Say = print,
    restart: Collection[str] = (), verify: bool = False, grace_seconds: float = GRACE_SECONDS,
    cache: Path | None = None, frozen_by: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a workflow; the same call continues where an earlier one stopped.

    Args:
        loaded: a checked workflow. run_folder: made where it does not exist.
        in_process: run the stages in this process, for debugging; one backend for all.
        quiet: show no progress. say: receives a line for each stage.
        restart: stages that do not go on from what an earlier run of them kept.
        verify: read every file of every finished stage, and run those again that are damaged.
        cache: folder in which runs share finished stages.
        frozen_by: the `workflow.lock` of this or another run, from which nothing may differ; None lets all differ.
        grace_seconds: for a stage to end its update and save after a stop signal; then it is killed.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        ConfigError: another runner holds the folder, or it can not be written; something is not as in `frozen_by`, and
            nothing has changed on disk. DiskError: no room. Stopped: a signal
            came.
        Other WorkflowErrors: from the stage; nothing half-written stands in its place.
    """
    if frozen_by is not None:
        frozen.need_equal(_plan(loaded, run_folder, frozen_by), frozen_by)
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, run_folder) from error
        raise ConfigError(
            f"{run_folder}: cannot make the run folder ({error.strerror}); choose another with --out"
        ) from error
    signals = StopSignals(grace_seconds)
    try:
        with run_lock(run_folder) as lock, signals.installed():
            return _run_locked(
                loaded, run_folder, in_process, quiet, say, signals, lock, restart, verify, cache, frozen_by
            )
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, run_folder) from error
        raise


def write_results(folder: Path) -> dict[str, Any]:
    """Build `summary.json` and `report.html` of a run, or of one of its seeds, from its folder; returns the summary."""
    # Here, not above: drawing takes half a second to load, and only a report pays for it.
    from pipelines.report import page

    with results.naming_damage(folder):
        return page.write(folder, registry.reports())


def _run_locked(
    loaded: LoadedWorkflow,
    run_folder: Path,
    in_process: bool,
    quiet: bool,
    say: Say,
    signals: StopSignals,
    lock: int,
    restart: Collection[str],
    verify: bool,
    cache: Path | None,
    frozen_by: Path | None,
) -> dict[str, Any]:
    workflow = loaded.workflow
    _clean(run_folder)
    results.adopt(run_folder)
    planned = _plan(loaded, run_folder, frozen_by)
    _need_memory(loaded, planned)
    hub_commits.need(one for stage in planned if stage.action == "run" for one in stage.hub.values())
    unfinished.settle(run_folder, planned, restart)
    write_text(run_folder / WORKFLOW_FILE, yaml_reader.dump(loaded.as_data()))
    write_json(run_folder / LOCK_FILE, _lock_record(workflow, planned))

    def start(partial: Path, backend: str) -> None:
        if in_process:
            stage_process.run_in_process(partial, backend, signals, quiet)
        else:
            stage_process.run_in_subprocess(partial, backend, signals, quiet, lock)

    (run_folder / GATE_FILE).unlink(missing_ok=True)
    stages_runner = StageRunner(loaded, planned, run_folder, start, say, verify, cache)
    for seed, stages in itertools.groupby(planned, key=lambda stage: stage.seed):
        for stage in stages:
            signals.check()
            try:
                stages_runner.take(stage)
            except GateError as error:
                write_json(run_folder / GATE_FILE, {"stage": error.stage, "message": error.reason})
                write_results(run_folder)
                raise
        if seed is not None:
            write_results(seed_folder(run_folder, seed))
    signals.check()
    return write_results(run_folder)


def _need_memory(loaded: LoadedWorkflow, planned: list[PlannedStage]) -> None:
    """Where there is no accelerator; what one of these has is not known here."""
    wanted = [stage for stage in planned if stage.action == "run"]
    names = [stage.name for stage in wanted if keys.machine(stage.backend)["accelerator"] == "cpu"]
    lines = shortages(loaded, dict.fromkeys(names), total_memory())
    if lines:
        raise ConfigError("\n".join(lines))


def _plan(loaded: LoadedWorkflow, run_folder: Path, lock: Path | None) -> list[PlannedStage]:
    return plan(loaded.workflow, loaded.base_folder, run_folder, loaded.user_functions, lock)


def _clean(run_folder: Path) -> None:
    """Remove temporary files that a killed run left, and finish a replacement that it had begun. Unfinished stages
    stay, see `unfinished.settle`."""
    for folder in (run_folder, *folders_with_stages(run_folder)):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in (folder / STAGES).glob("[!.]*"):
            finish_save(path)


def _lock_record(workflow: Workflow, planned: list[PlannedStage]) -> dict[str, Any]:
    def stages_of(seed: int | None) -> dict[str, Any]:
        return {stage.name: {"key": stage.key, **stage.parts} for stage in planned if stage.seed == seed}

    record = {
        "name": workflow.name,
        "seed": workflow.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "hub": {one.name.written: one.record() for stage in planned for one in stage.hub.values()},
        "stages": stages_of(None),
    }
    if workflow.seeds is not None:
        record["seeds"] = {str(seed): stages_of(seed) for seed in workflow.seeds.values}
    return record
