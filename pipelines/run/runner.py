"""Runs a workflow in its folder: skips what is finished under an equal key, runs the rest, writes summary and report.

The folder: `workflow.yaml` (resolved), `workflow.lock` (keys and what they were made of), `stages/<name>/`,
`summary.json`, `report.html`; with `seeds`, also `seeds/<seed>/` with the last three. A stage writes into
`stages/.<name>.partial/`, which gets its name when all of it is on disk; until then its `state/` holds what the next
start goes on from.
"""

import dataclasses
import itertools
import os
import platform
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from gemma_keras.files import write_text
from pipelines.host.errors import ConfigError, DataError, Stopped
from pipelines.host.files import disk_error, is_disk_error, read_json, recover_folder, write_json
from pipelines.host.progress import duration
from pipelines.host.run_folder import STAGES, WORKFLOW_FILE, folders_with_stages, seed_folder
from pipelines.host.states import how_far, keep_only_state, partial_of
from pipelines.run import keys, results, stage_process, unfinished
from pipelines.run.locking import run_lock
from pipelines.run.planning import PlannedStage, plan
from pipelines.run.stop_signals import GRACE_SECONDS, StopSignals
from pipelines.schema.roles import plain
from pipelines.stages import registry
from pipelines.workflow import yaml_reader
from pipelines.workflow.loading import LoadedWorkflow
from pipelines.workflow.schema import StateOptions, Workflow

Say = Callable[[str], None]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def run(
    loaded: LoadedWorkflow, run_folder: Path, in_process: bool = False, quiet: bool = False, say: Say = print,
    restart: Collection[str] = (), verify: bool = False, grace_seconds: float = GRACE_SECONDS,
) -> dict[str, Any]:  # fmt: skip
    """Run a workflow; the same call continues where an earlier one stopped.

    Args:
        loaded: a checked workflow. run_folder: made where it does not exist.
        in_process: run the stages in this process, for debugging; one backend for all.
        quiet: show no progress. say: receives a line for each stage.
        restart: stages that do not go on from what an earlier run of them kept.
        verify: read every file of every finished stage, and run those again that are damaged.
        grace_seconds: for a stage to end its update and save after a stop signal; then it is killed.

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
    signals = StopSignals(grace_seconds)
    try:
        with run_lock(run_folder) as lock, signals.installed():
            return _run_locked(loaded, run_folder, in_process, quiet, say, signals, lock, restart, verify)
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
    signals: StopSignals,
    lock: int,
    restart: Collection[str],
    verify: bool,
) -> dict[str, Any]:
    workflow = loaded.workflow
    _clean(run_folder)
    results.adopt(run_folder)
    planned = plan(workflow, loaded.base_folder, run_folder, loaded.user_functions)
    unfinished.settle(run_folder, planned, restart)
    write_text(run_folder / WORKFLOW_FILE, yaml_reader.dump(loaded.as_data()))
    write_json(run_folder / "workflow.lock", _lock_record(workflow, planned))

    def start(partial: Path, backend: str) -> None:
        if in_process:
            stage_process.run_in_process(partial, backend, signals, quiet)
        else:
            stage_process.run_in_subprocess(partial, backend, signals, quiet, lock)

    stages_runner = StageRunner(loaded, planned, run_folder, start, say, verify)
    for seed, stages in itertools.groupby(planned, key=lambda stage: stage.seed):
        for stage in stages:
            signals.check()
            stages_runner.take(stage)
        if seed is not None:
            write_results(seed_folder(run_folder, seed))
    signals.check()
    return write_results(run_folder)


class StageRunner:
    """The stages of one run, taken one after the other.

    Args:
        start: runs the stage that is prepared in a folder, on a backend. say: receives a line for each stage.
        verify: read every file of every finished stage; else only of those that are read in this run.
    """

    def __init__(
        self, loaded: LoadedWorkflow, planned: Sequence[PlannedStage], run_folder: Path,
        start: Callable[[Path, str], None], say: Say, verify: bool,
    ) -> None:  # fmt: skip
        self._loaded, self._planned, self._run_folder = loaded, list(planned), run_folder
        self._start, self._say, self._verify = start, say, verify
        self._whole: set[Path] = set()

    def take(self, stage: PlannedStage) -> None:
        """Run a stage, or leave it as it is finished, or take an earlier result of it."""
        heading = f"[{self._planned.index(stage) + 1}/{len(self._planned)}] {stage.label}"
        target = self._run_folder / stage.folder
        kept = results.kept_result(self._run_folder, stage.name, stage.key) if stage.action == "take" else None
        if kept is not None:
            results.put_in_place(self._run_folder, kept, target)
            self._say(f"{heading} ({stage.kind}): taken back from {results.KEPT_FOLDER}/{kept.name}")
        elif stage.action == "skip":
            self._say(f"{heading} ({stage.kind}): finished before, skipped")
            if self._verify:
                self._need_whole(stage)
        else:
            self._run(stage, heading, stage.reasons)

    def _run(self, stage: PlannedStage, heading: str, reasons: Sequence[str]) -> None:
        for name in stage.inputs:
            self._need_whole(next(one for one in self._planned if one.folder == stage.inputs[name]))
        target = self._run_folder / stage.folder
        partial = partial_of(target)
        done = how_far(partial)
        how = f"because {'; '.join(reasons)}" if done is None else f"going on at {done}"
        self._say(f"{heading} ({stage.kind}): on {stage.backend}, {how}")
        _prepare(self._loaded, stage, partial)
        try:
            self._start(partial, stage.backend)
        except BaseException as error:
            done = unfinished.after_failure(partial, error)
            if isinstance(error, Stopped):
                at = "" if done is None else f" at {done}"
                self._say(f"stopped in stage {stage.label}{at}; finished stages are kept, the same command continues")
            raise
        results.put_in_place(self._run_folder, partial, target)
        self._whole.add(target)
        self._say(f"{heading}: done in {duration(read_json(target / 'stage.json')['seconds'])}")

    def _need_whole(self, stage: PlannedStage) -> None:
        """Run a finished stage again whose files are not as they were written."""
        target = self._run_folder / stage.folder
        if target in self._whole:
            return
        found = results.damage(target, with_digests=True)
        if found is not None:
            shutil.rmtree(target)  # not to be kept
            self._run(stage, stage.label, [f"{stage.folder}: {found}"])
        self._whole.add(target)


def _prepare(loaded: LoadedWorkflow, stage: PlannedStage, partial: Path) -> None:
    """Make the folder that the stage writes into, with the `stage.json` that says what to run; what an earlier run of
    it kept stays.

    Its `inputs` are folders relative to the one that the stage's own lies in.
    """
    read = _files_to_read(loaded, stage)
    partial.mkdir(parents=True, exist_ok=True)
    keep_only_state(partial)
    state = loaded.workflow.state or StateOptions()
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
            "state": state.model_dump(),
            "read": read,
        },
    )


def _files_to_read(loaded: LoadedWorkflow, stage: PlannedStage) -> dict[str, Any]:
    """Files and folders outside the run that a stage reads, as they were when they were found to be what was planned.

    Raises:
        DataError: one has changed since.
    """
    found = {}
    of_seed = loaded.workflow.model_copy(update={"seed": stage.parts["seed"]})
    for dotted, path in keys.local_paths(of_seed, stage.name, loaded.base_folder).items():
        before = keys.fingerprint(path)
        if keys.content_digest(path) != stage.parts["data"].get(dotted):
            raise DataError(
                f"{path}: changed while the run was going, so stage {stage.label!r} would not be the one that was "
                "planned. Run the same command again"
            )
        found[dotted] = {"path": str(path), "files": before}
    return found


def _clean(run_folder: Path) -> None:
    """Remove temporary files that a killed run left, and finish a replacement that it had begun. Unfinished stages
    stay, see `unfinished.settle`."""
    for folder in (run_folder, *folders_with_stages(run_folder)):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in (folder / STAGES).glob(".*.old"):
            recover_folder(path.with_name(path.name[1:].removesuffix(".old")))


def _lock_record(workflow: Workflow, planned: list[PlannedStage]) -> dict[str, Any]:
    def stages_of(seed: int | None) -> dict[str, Any]:
        return {stage.name: {"key": stage.key, **stage.parts} for stage in planned if stage.seed == seed}

    record = {
        "name": workflow.name,
        "seed": workflow.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "stages": stages_of(None),
    }
    if workflow.seeds is not None:
        record["seeds"] = {str(seed): stages_of(seed) for seed in workflow.seeds.values}
    return record
