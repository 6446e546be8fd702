"""`status RUN_DIR`: how far a run is, from what lies on disk."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma_keras.files import can_exist
from gemma_keras.json_values import finite_number
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.files import read_json
from pipelines.host.progress import duration
from pipelines.host.run_folder import LOCK_FILE, stage_folder
from pipelines.host.states import MANIFEST, Done, how_far, partial_of, state_folders
from pipelines.run.locking import working_process
from pipelines.run.results import damage, read_about


def status(options: argparse.Namespace) -> int:
    """Print a line a stage: finished, at work with step and time left, or waiting."""
    folder: Path = options.run_folder
    process = working_process(folder)
    print("\n".join(lines(folder, process is not None)))
    print("no process works on it" if process is None else f"process {process} works on it", flush=True)
    return 0


def lines(folder: Path, is_at_work: bool) -> list[str]:
    """What `status` prints of the stages.

    Raises:
        ConfigError: no run folder.
    """
    labels = {f"{name}, seed {seed}" if seed is not None else name: (name, seed) for name, seed in _stages(folder)}
    width = max(map(len, labels), default=0)
    return [
        f"{label.ljust(width)}  {_line(stage_folder(folder, name, seed), is_at_work)}"
        for label, (name, seed) in labels.items()
    ]


def _stages(folder: Path) -> Iterator[tuple[str, int | None]]:
    try:
        record: Any = read_json(folder / LOCK_FILE)
        yield from ((_plain(name), None) for name in record["stages"])
        yield from ((_plain(name), int(seed)) for seed, stages in record.get("seeds", {}).items() for name in stages)
    except (DataError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder}: no run folder; expected the folder that `run` wrote, with {LOCK_FILE}") from error


def _plain(name: Any) -> str:
    """A name of a stage, which leads to no other folder."""
    if not isinstance(name, str) or Path(name).name != name or not can_exist(name):
        raise ValueError(f"no stage name: {name!r}")
    return name


def _line(stage: Path, is_at_work: bool) -> str:
    partial = partial_of(stage)
    done = how_far(partial)
    if done is not None:
        when = time.time() - (state_folders(partial)[0] / MANIFEST).stat().st_mtime
        left = _left(done) if is_at_work else ""
        return f"{'at work' if is_at_work else 'stopped'}, {done}{left}, last state {duration(when)} ago"
    if partial.is_dir():
        return "at work, no state yet" if is_at_work else "stopped before its first state"
    if not stage.is_dir():
        return "waiting"
    found = damage(stage)
    if found is not None:
        return f"damaged: {found}"
    return f"finished in {duration(finite_number(read_about(stage).get('seconds')) or 0)}"


def _left(done: Done) -> str:
    if done.of is None or not done.done:
        return ""
    return f", {duration(done.seconds * (done.of - done.done) / done.done)} left"
