"""Stages that an earlier run did not finish: which are gone on with, and which may be dropped without being asked."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from pipelines.host.errors import ConfigError, DiskError, Stopped
from pipelines.host.progress import duration
from pipelines.host.run_folder import STAGES, folders_with_stages, run_of
from pipelines.host.spelling import did_you_mean
from pipelines.host.states import Done, count_failure, how_far, keep_only_state, partial_of
from pipelines.run import keys
from pipelines.run.planning import PlannedStage
from pipelines.run.results import read_about

MOST_LOST_SECONDS = 60.0
"""Work that is dropped without being asked."""
MOST_FAILURES = 3
"""From the same state, before a stage starts over."""


def settle(run_folder: Path, planned: Sequence[PlannedStage], restart: Collection[str] = ()) -> None:
    """Leave the unfinished stages that the run goes on with, and nothing else unfinished. One that goes on from where a
    shorter one ended becomes such a stage.

    Args:
        restart: stages whose unfinished work is not wanted.

    Raises:
        ConfigError: more than a minute of work would be lost, and `restart` does not name it; or it names no stage. No
            folder has changed then.
    """
    stages = {run_folder / stage.folder: stage for stage in planned}
    partials = {folder: partial_of(folder) for folder in [*stages, *_others(run_folder, stages)]}
    names = {folder.name for folder in partials}
    for name in restart:
        if name not in names:
            raise ConfigError(f"--restart {name}: there is no stage {name!r}.{did_you_mean(name, names)}")
    complaints, dropped = [], []
    for folder, partial in partials.items():
        stage, done = stages.get(folder), how_far(partial)
        is_wanted = stage is not None and stage.resumes and stage.shorter is None
        if is_wanted and done is not None and folder.name not in restart:
            continue
        dropped.append(partial)
        if done is not None and done.seconds > MOST_LOST_SECONDS and folder.name not in restart:
            complaints.append(_complaint(folder, partial, done, stage))
    if complaints:
        raise ConfigError("\n".join(complaints))
    for partial in dropped:
        if partial.exists():
            shutil.rmtree(partial)
    for folder, stage in stages.items():
        if stage.resumes and stage.shorter is not None and folder.name not in restart:
            shutil.rmtree(partial_of(folder), ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            stage.shorter.rename(partial_of(folder))


def after_failure(partial: Path, error: BaseException) -> Done | None:
    """Leave what a stage can go on from, or nothing. Returns how far it came."""
    done = how_far(partial)
    # A signal or a full disk says nothing about the state; the same fault again and again does.
    is_innocent = isinstance(error, Stopped | DiskError)
    is_kept = done is not None and (is_innocent or count_failure(partial, MOST_FAILURES))
    if not is_kept:
        shutil.rmtree(partial, ignore_errors=True)
        return None
    keep_only_state(partial)
    return done


def _others(run_folder: Path, stages: Collection[Path]) -> list[Path]:
    """Stages that began in a workflow of the same name and are no longer in it."""
    found = [
        path.with_name(path.name.removeprefix(".").removesuffix(".partial"))
        for folder in folders_with_stages(run_folder)
        for path in (folder / STAGES).glob(".*.partial")
    ]
    return [folder for folder in found if folder not in stages]


def _complaint(folder: Path, partial: Path, done: Done, stage: PlannedStage | None) -> str:
    _, seed = run_of(folder.parent.parent)
    label = folder.name if seed is None else f"{folder.name}, seed {seed}"
    found = f"{label}: {done} are done, {duration(done.seconds)} of work"
    way_out = f"or start it over: --restart {folder.name}"
    if stage is None:
        return f"{found}, and the workflow has no such stage any more. Put it back, {way_out}"
    old = read_about(partial).get("key_parts")
    changes = keys.changes(old if isinstance(old, dict) else {}, stage.parts) or ["its key changed"]
    return f"{found}; {'; '.join(changes)}. Put that back, {way_out}"
