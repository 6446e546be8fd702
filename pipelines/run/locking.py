"""One runner a run folder. The lock belongs to the open file, so the system frees it whatever kills the process."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from gemma_keras.files import is_alive
from pipelines.host.errors import ConfigError
from pipelines.host.files import disk_error, is_disk_error

LOCK_FILE = ".lock"
ORPHAN_SECONDS = 15.0


@contextlib.contextmanager
def run_lock(run_folder: Path) -> Iterator[int]:
    """Hold a run folder for this process; yields the lock's file descriptor, which a stage's process inherits.

    A stage whose runner was killed ends by itself within a moment; its lock is waited for. A living runner's is not.
    Held through `filelock.lock_descriptor` and not `FileLock`: a descriptor of ours can be handed on to the stage.

    Raises:
        ConfigError: another runner works in the folder; says its process id. Or the lock is somebody else's.
    """
    path = run_folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        try:
            _acquire(descriptor, run_folder)
        except OSError as error:
            raise _no_lock(path, error) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def working_process(run_folder: Path) -> int | None:
    """The process that runs a workflow in a folder, or None."""
    try:
        holder = (run_folder / LOCK_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return int(holder) if holder.isdecimal() and is_alive(int(holder)) else None


def _no_lock(path: Path, error: OSError) -> Exception:
    if is_disk_error(error):
        return disk_error(error, path.parent)
    return ConfigError(
        f"{path}: cannot be locked ({error.strerror}); remove it if it is yours, or choose another --out"
    )


def _acquire(descriptor: int, run_folder: Path) -> None:
    give_up = time.monotonic() + ORPHAN_SECONDS
    while not filelock.lock_descriptor(descriptor, blocking=False):
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        if (holder.isdecimal() and is_alive(int(holder))) or time.monotonic() > give_up:
            raise ConfigError(
                f"{run_folder}: another run (process {holder or 'unknown'}) works in this folder. "
                "Wait for it, stop it, or choose another --out"
            )
        time.sleep(0.05)
