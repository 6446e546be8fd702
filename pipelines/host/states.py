"""The states that an unfinished stage keeps, as folders: where they lie, and what their manifests say.

`stages/.NAME.partial/state/STEP/` holds a `manifest.json`, written last, and the files that it lists. What they hold,
and when one is taken, says `pipelines/training/state.py`; the runner only asks how far a stage came.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma_keras.files import need_file
from gemma_keras.json_values import finite_number
from pipelines.host.errors import DataError
from pipelines.host.files import read_json, write_json

STATE = "state"
MANIFEST = "manifest.json"
FAILURES_FILE = "failures.json"
SNAPSHOTS = "snapshots"
"""Folder of the models that a stage saved on its way, `snapshots/STEP/model/`; they stay in the finished stage."""
LOGS = ("metrics.jsonl", "samples.jsonl")
KEPT = (STATE, FAILURES_FILE, SNAPSHOTS, "stage.json", *LOGS)
"""What of an unfinished stage's folder the next start goes on from."""


@dataclasses.dataclass(frozen=True)
class Done:
    """How far an unfinished stage came, as of its newest manifest.

    Attributes:
        key: of the stage. step: of the state.
        done, of: how many of how many `unit`; `of` is None where nobody knows. seconds: that they took.
        longest_wait: seconds from one place where a stop signal is seen to the next, at most so far.
    """

    key: str
    step: int
    done: int
    of: int | None
    unit: str
    seconds: float
    longest_wait: float = 0.0

    def __str__(self) -> str:
        return f"{self.done} {self.unit}" if self.of is None else f"{self.done} of {self.of} {self.unit}"


def partial_of(stage_folder: Path) -> Path:
    """Where a stage's folder lies until it is finished."""
    return stage_folder.with_name(f".{stage_folder.name}.partial")


def state_folders(partial: Path) -> list[Path]:
    """The folders of states, the newest first."""
    found = [path for path in (partial / STATE).glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a state, and its own digest into it."""
    write_json(folder / MANIFEST, {**manifest, "sha256": _digest(manifest)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a state.

    Raises:
        ValueError: it is missing, no manifest, or not as it was written.
    """
    try:
        need_file(folder / MANIFEST)
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is no JSON") from error
    if not isinstance(found, dict) or not _says_how_far(found):
        raise ValueError(f"{MANIFEST} is no manifest")
    if found.pop("sha256", None) != _digest(found):
        raise ValueError(f"{MANIFEST} has other contents than were written")
    return found


def _digest(manifest: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(manifest))  # as it is read back: all keys are texts
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _says_how_far(found: Mapping[str, Any]) -> bool:
    seconds = finite_number(found.get("seconds"))
    counts = [found.get(name) for name in ("step", "done", "of") if name != "of" or found.get(name) is not None]
    return (
        "of" in found
        and all(type(count) is int and 0 <= count < 2**63 for count in counts)
        and all(isinstance(found.get(name), str) for name in ("key", "unit"))
        and seconds is not None
        and seconds >= 0
    )


def how_far(partial: Path) -> Done | None:
    """How far an unfinished stage came; None where there is no state of it that can be read."""
    for folder in state_folders(partial):
        try:
            found = read_manifest(folder)
            return Done(**{field.name: found[field.name] for field in dataclasses.fields(Done) if field.name in found})
        except (ValueError, TypeError):
            continue
    return None


def count_failure(partial: Path, most: int) -> bool:
    """Note that a stage failed after its newest state; False where that has now happened `most` times in a row, so that
    going on from there once more would not help."""
    done = how_far(partial)
    if done is None:
        return False
    path = partial / FAILURES_FILE
    try:
        before = read_json(path)
        count = before["count"] + 1 if before["step"] == done.step else 1
    except (DataError, KeyError, TypeError):
        count = 1
    path.write_text(json.dumps({"step": done.step, "count": count}), encoding="utf-8")
    return count < most


def snapshot_folder(stage_folder: Path, step: int) -> Path:
    """Where a stage's model after so many updates lies, beside `model/` after all."""
    return stage_folder / SNAPSHOTS / str(step)


def drop_snapshots_after(partial: Path, step: int) -> None:
    """Remove the models of later updates than an unfinished stage goes on from."""
    for folder in (partial / SNAPSHOTS).glob("*"):
        if not folder.name.isdecimal() or int(folder.name) > step:
            shutil.rmtree(folder)


def keep_only_state(partial: Path) -> None:
    """Remove what a killed stage had begun to write beside its states."""
    for path in partial.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def drop_states(partial: Path) -> None:
    """Remove the states: the stage is finished, or starts over.

    Raises:
        OSError: the disk; none is left in a finished stage, where nobody would look for it.
    """
    if (partial / STATE).exists():
        shutil.rmtree(partial / STATE)
    (partial / FAILURES_FILE).unlink(missing_ok=True)
