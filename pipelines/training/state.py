"""What an unfinished stage keeps of its work, so that the next start goes on from there with equal bits.

Only what cannot be derived is kept: draws are keyed by seed, stage, step and row, so there is no data cursor and no
random state. A state is taken between updates, in policy optimization between steps; what was cut in half is done
again. It is taken by time, so that its cost stays under 3 % for every model and disk, and at a stop signal.

Of what is made in parts, such as a rollout, the finished parts are kept.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints.errors import CheckpointError
from pipelines.host import stopping
from pipelines.host.errors import DiskError, Stopped
from pipelines.host.parts import Compute
from pipelines.host.process_memory import available_memory
from pipelines.host.states import LOGS, MANIFEST, STATE, drop_snapshots_after, state_folders
from pipelines.training.model_folder import write_folder
from pipelines.training.state_files import Snapshot, Source, by_part, flat_parts, read_state, write_state

COST_SHARE = 33.0
"""A state is taken when that many times what the last one cost has passed: 3 %."""
MEMORY_SHARE = 0.25
"""Of the free memory; a copy that needs more is written variable by variable while the loop waits."""

Collect = Callable[[], Snapshot]


class StageState:
    """The states of one stage.

    Args:
        output: the unfinished stage's folder.
        key: the stage's. versions: of the packages that compute, for whoever reads the manifest.
        every_seconds: least time from one state to the next; 0 keeps none.
        keep: states that are left on disk.
        warn: is told of a state that is damaged.
        last: whether the one after the last update is taken too, from which a longer stage could go on.

    Attributes:
        seconds_before: what the stage has taken in earlier processes, up to the state that it goes on from.
    """

    def __init__(
        self, output: Path, key: str, versions: Mapping[str, str], every_seconds: float = 30.0, keep: int = 2,
        warn: Callable[[str], None] = lambda message: None, last: bool = False,
    ) -> None:  # fmt: skip
        self._output, self._key, self._versions = output, key, dict(versions)
        self._every_seconds, self._keep, self._warn, self._takes_last = every_seconds, keep, warn, last
        self._started = self._looked = time.monotonic()
        self._longest_wait = 0.0
        self._last: float | None = None
        self._loop_seconds = self._writer_seconds = 0.0
        self._costs: list[tuple[float, float]] = []
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._is_training = False
        self.seconds_before = 0.0
        self._saved = self._newest() if self.is_on else None
        self._parts = {} if self._saved is None else by_part(self._saved.part("parts").arrays)
        if self._saved is None or "training" not in self._saved.record:
            for name in LOGS:  # written anew
                (output / name).unlink(missing_ok=True)
            drop_snapshots_after(output, 0)

    @property
    def is_on(self) -> bool:
        """Whether any state is kept."""
        return self._every_seconds > 0

    def resume(self, warnings: list[str]) -> Snapshot | None:
        """What a loop goes on from; None where it starts, and from the second call on, as nothing of it stays here.
        Cuts the logs to where they were.

        Args:
            warnings: what was said so far; those of the state are put before them.
        """
        saved, self._saved = self._saved, None
        if saved is None or "training" not in saved.record:
            return None
        for name, length in saved.record["lengths"].items():
            if length is None:
                (self._output / name).unlink(missing_ok=True)
            else:
                os.truncate(self._output / name, length)
        before = saved.record["warnings"]
        warnings[:] = [*before, *(one for one in warnings if one not in before)]
        return saved.part("training")

    def part(
        self, name: str, compute: Compute, of: int | None = None, at_once: bool = False
    ) -> Mapping[str, np.ndarray]:
        """A `Keep`; what is asked for once a loop has begun is not kept. `at_once`: it is on disk when this returns,
        whatever that costs, as of answers that were paid for.

        Raises:
            Stopped: a signal came. DiskError: no room.
        """
        if name not in self._parts:
            if not self.is_on or self._is_training:
                return compute()
            self._parts[name] = dict(compute())
            self._checkpoint(len(self._parts), of, "parts", Snapshot, is_last=at_once)
            if at_once:
                self._wait()
        return self._parts[name]

    def checkpoint(self, done: int, of: int, unit: str, collect: Collect, warnings: list[str]) -> None:
        """Between two updates: take a state where it is time, or a stop signal waits.

        Args:
            done, of: how many of how many `unit` are done. collect: what the loop keeps. warnings: said so far.

        Raises:
            Stopped: a signal came. DiskError: no room.
        """
        if self._is_training:
            self._longest_wait = max(self._longest_wait, time.monotonic() - self._looked)
        self._is_training = True
        whole = functools.partial(self._whole, collect, warnings)
        self._checkpoint(done, of, unit, whole, is_last=self._takes_last and done == of)
        self._looked = time.monotonic()

    @contextlib.contextmanager
    def changing_nothing(self, done: int, of: int, unit: str, collect: Collect, warnings: list[str]) -> Iterator[None]:
        """Within is long work that changes nothing of what is kept, such as a rollout: a stop signal is obeyed there,
        after a state of what was before; the logs may have grown. Arguments as of `checkpoint`.

        Raises:
            Stopped: a signal came. DiskError: no room.
        """
        if not (self.is_on and self._is_training):  # nothing waits, or not yet
            yield
            return
        whole = functools.partial(self._whole, collect, warnings, self._lengths())
        try:
            with stopping.obeyed():
                yield
        except Stopped:
            self._save(done, of, unit, whole)
            self._wait()
            raise
        finally:
            self._looked = time.monotonic()

    def _whole(
        self, collect: Collect, warnings: list[str], lengths: Mapping[str, int | None] | None = None
    ) -> Snapshot:
        """What a state holds; `lengths` of the logs, where they have grown since."""
        found = collect()
        record = {"training": found.record, "warnings": list(warnings), "lengths": lengths or self._lengths()}
        return Snapshot(found.under("training"), record)

    def finish(self) -> None:
        """The loop is over: wait for what is being written; signals are obeyed at once again.

        Raises:
            Stopped: one came meanwhile. DiskError: no room.
        """
        try:
            self._wait()
        finally:
            stopping.obey()

    def figures(self) -> dict[str, float]:
        """What this process's states cost: `taken`, `pause` and `longest_pause` of the loop in seconds, and
        `writing`, processor time beside it; and `longest_wait`, for which a stop signal would have had to wait."""
        pauses, writing = zip(*self._costs, strict=True) if self._costs else ((), ())
        return {
            "taken": len(pauses),
            "pause": round(sum(pauses), 3),
            "longest_pause": round(max(pauses, default=0.0), 3),
            "writing": round(sum(writing), 3),
            "longest_wait": round(self._longest_wait, 3),
        }

    def _checkpoint(self, done: int, of: int | None, unit: str, collect: Collect, is_last: bool = False) -> None:
        if not self.is_on:
            return
        stopping.defer()
        if self._last is None:
            self._last = time.monotonic()
        number = stopping.requested()
        # Where device and host share cores the writer takes the loop's time too; elsewhere this is too careful.
        cost = self._loop_seconds + self._writer_seconds
        is_due = is_last or time.monotonic() - self._last >= max(self._every_seconds, COST_SHARE * cost)
        if number is None and not is_due:
            return
        self._save(done, of, unit, collect)
        if number is not None:
            self._wait()
            raise Stopped(number)

    def _save(self, done: int, of: int | None, unit: str, collect: Collect) -> None:
        started = time.monotonic()
        self._wait()
        found = collect()
        arrays = {**found.arrays, **Snapshot(flat_parts(self._parts)).under("parts")}
        size = sum(array.size if isinstance(array, Source) else array.nbytes for array in arrays.values())
        self._need_room(size)
        step = len(self._parts) + (done if self._is_training else 0)
        manifest = {
            "key": self._key, "step": step, "done": done, "of": of, "unit": unit,
            "seconds": self.seconds_before + started - self._started, "longest_wait": round(self._longest_wait, 3),
            "versions": self._versions,
            "record": dict(found.record),
        }  # fmt: skip
        target = self._output / STATE / str(step)
        if size <= MEMORY_SHARE * available_memory():
            copies = {name: array.read() if isinstance(array, Source) else array for name, array in arrays.items()}
            self._writer = threading.Thread(target=self._write, args=(target, copies, manifest))
            self._writer.start()
        else:
            self._write(target, arrays, manifest)
            self._wait()
            self._writer_seconds = 0.0  # it is in the loop's
            self._costs.append((time.monotonic() - started, 0.0))
        self._last = time.monotonic()
        self._loop_seconds = self._last - started

    def _write(self, target: Path, arrays: Mapping[str, Any], manifest: dict[str, Any]) -> None:
        """In a thread of its own, or in the loop where a copy has no room."""
        started = time.thread_time()
        try:
            for name in LOGS:
                _sync(self._output / name)
            lengths = manifest["record"].get("lengths", {})
            logs = {name: _digest(self._output / name, length) for name, length in lengths.items() if length}
            write_folder(target, lambda folder: write_state(folder, arrays, {**manifest, "logs": logs}))
            for folder in state_folders(self._output)[self._keep :]:
                shutil.rmtree(folder)
        except BaseException as error:
            self._failure = error
        self._writer_seconds = time.thread_time() - started

    def _wait(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None
            self._costs.append((self._loop_seconds, self._writer_seconds))
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _need_room(self, size: int) -> None:
        there = sum(path.stat().st_size for path in (self._output / STATE).rglob("*") if path.is_file())
        needed, free = (self._keep + 1) * size - there, shutil.disk_usage(self._output).free
        if free < needed:
            raise DiskError(
                f"{self._output / STATE}: no room for the stage's state: {needed / 2**20:.0f} MiB are needed for "
                f"{self._keep} and one that is being written, {free / 2**20:.0f} MiB are free. Make room and run the "
                "same command again, or keep fewer (state: {keep: 1}) or none (state: {every_seconds: 0})"
            )

    def _lengths(self) -> dict[str, int | None]:
        paths = {name: self._output / name for name in LOGS}
        return {name: path.stat().st_size if path.exists() else None for name, path in paths.items()}

    def _newest(self) -> Snapshot | None:
        """The newest state that is whole."""
        for path in (self._output / STATE).glob(".*"):
            shutil.rmtree(path)
        for folder in state_folders(self._output):
            try:
                arrays, manifest = read_state(folder)
                if manifest["key"] != self._key:
                    continue
                self._check_logs(manifest["record"].get("lengths", {}), manifest["logs"])
                self.seconds_before = float(manifest["seconds"])
                drop_snapshots_after(self._output, int(manifest["done"]))
            except (ValueError, KeyError, TypeError, CheckpointError) as error:
                self._warn(f"the state {STATE}/{folder.name} is damaged: {error}; going on from the one before")
                continue
            return Snapshot(arrays, manifest["record"])
        return None

    def _check_logs(self, lengths: Mapping[str, int | None], digests: Mapping[str, str]) -> None:
        for name, length in lengths.items():
            path = self._output / name
            if name not in LOGS:
                raise ValueError(f"{MANIFEST} speaks of {name!r}, which is no log")
            if length is not None and (not path.is_file() or path.stat().st_size < length):
                raise ValueError(f"{name} is shorter than it was")
            if length and _digest(path, length) != digests[name]:
                raise ValueError(f"{name} has other contents than were written")


def _digest(log: Path, length: int) -> str:
    """Of the first so many bytes of a log, to which a stage only adds."""
    with log.open("rb") as file:
        return hashlib.sha256(file.read(length)).hexdigest()


def _sync(path: Path) -> None:
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
