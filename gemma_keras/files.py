"""Files and folders that a reader finds with all of their old contents or all of their new ones, whenever the writer
dies.

A file is written under a temporary name, flushed and renamed. So is a folder that was not there. One that is there may
hold files that are not ours, or be a mount point: it stays, and the complete new files become its subfolder `.saved` by
one rename, the moment of the change. Then the old files are removed and the new ones take their places, the
configuration first and last: another program finds the old ones, the new ones, or no configuration, which it refuses;
never a mix. Where the writer dies in between, whoever opens the folder here calls `finish_save`, and so does the next
save.
"""

import contextlib
import errno
import fnmatch
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock

SAVED = ".saved"
# In `.saved`: names to remove from the folder before the new files take their places, each followed by a zero byte. It
# goes when they are gone.
_RECORD = ".replaces"
# Without it no reader takes a folder for a model, an adapter or a tokenizer.
_CONFIGURATIONS = ("adapter_config.json", "config.json", "tokenizer_config.json")
_TEMPORARY = re.compile(r"\.writing-(\d+)-\d+\Z")
_numbers = itertools.count()
_being_written: set[str] = set()


def need_file(path: Path) -> None:
    """Refuse a pipe, a device or a socket before it is opened: reading from one can wait, or go on, for ever.

    Raises:
        OSError: it is one.
    """
    mode = path.stat().st_mode if path.exists() else stat.S_IFREG  # who opens it says that there is none
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a pipe, device or socket; expected a file", str(path))


def can_exist(path: str | Path) -> bool:
    """Whether a file could have this name: none that is too long, or holds a zero character."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    except ValueError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically; its folder must exist."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all files below a folder durable, as needed before the folder is renamed to its final name."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(Path(parent))


def temporary_beside(file: Path) -> Path:
    """The name under which this process writes a large file until it is complete. What processes that are dead left of
    the same file is removed."""
    stem, ending = f".{file.name}.", ".partial"
    with contextlib.suppress(OSError):  # no such folder: whoever writes there says so
        for name in os.listdir(file.parent):
            process = name.removeprefix(stem).removesuffix(ending)
            if name == f"{stem}{process}{ending}" and process.isdecimal() and not is_alive(int(process)):
                (file.parent / name).unlink(missing_ok=True)
    return file.with_name(f"{stem}{os.getpid()}{ending}")


def is_alive(process: int) -> bool:
    """Whether there is a process of this id, anyone's."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def atomic_folder(folder: str | Path, stale: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to be filled; when that went well its files take their places in `folder`.

    An error while it is filled leaves `folder` as it was. What earlier saves left in this place whose processes are
    dead is removed.

    Args:
        folder: made where it is missing, with its parents.
        stale: patterns of names to be removed from it beside those of the new files, such as "model-*.safetensors";
            all other files stay.

    Raises:
        OSError: the disk; or `folder` is a file.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    place = folder if folder.is_dir() else folder.parent
    place.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    remove_abandoned(folder.parent)
    temporary = place / f".writing-{os.getpid()}-{next(_numbers)}"
    _being_written.add(temporary.name)
    try:
        temporary.mkdir()
        yield temporary
        place_folder(temporary, folder, stale)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _being_written.discard(temporary.name)


def place_folder(new: Path, folder: Path, stale: Iterable[str] = ()) -> None:
    """Give the files of a finished folder their places in `folder`, all of them or none.

    Args:
        new: on the same file system; is gone afterwards.
        folder, stale: see `atomic_folder`.

    Raises:
        OSError: the disk.
    """
    sync_tree(new)
    if not folder.is_dir():
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        else:
            sync_folder(folder.parent)
            return
    with _locked(folder):  # who loads at this moment, or saves too, would finish the same `.saved`
        _finish(folder)
        _write_record(new, folder, tuple(stale))
        new.rename(folder / SAVED)
        sync_folder(folder)
        _finish(folder)


def finish_save(folder: str | Path) -> None:
    """Finish a save that was complete when its process died; nothing where there is none.

    Raises:
        OSError: this process may not write there, or what is there was left by no save.
    """
    folder = Path(folder)
    if os.path.isdir(folder / SAVED):
        with _locked(folder):
            _finish(folder)


def remove_abandoned(place: Path) -> None:
    """Remove what saves left here whose processes are dead."""
    with contextlib.suppress(OSError):  # no such folder, or none that may be listed
        for name in os.listdir(place):
            found = _TEMPORARY.match(name)
            if found is not None and not _is_being_written(name, int(found[1])):
                shutil.rmtree(place / name, ignore_errors=True)


def _is_being_written(name: str, process: int) -> bool:
    # One of this process's id may be an earlier process's, as in containers.
    return name in _being_written if process == os.getpid() else is_alive(process)


def _write_record(new: Path, folder: Path, stale: tuple[str, ...]) -> None:
    ours = set(os.listdir(new))
    names = [
        name
        for name in os.listdir(folder)
        if name in ours or any(fnmatch.fnmatchcase(name, pattern) for pattern in stale)
    ]
    kept = [name for name in names if name != SAVED and _TEMPORARY.match(name) is None]
    with open(new / _RECORD, "wb") as file:
        file.writelines(os.fsencode(name) + b"\0" for name in sorted(kept, key=_rank))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(new)


def _finish(folder: Path) -> None:
    """What `.saved` still asks for; each step can be repeated."""
    saved = folder / SAVED
    if saved.is_symlink() or not saved.is_dir():  # a link may lead to files that are not the folder's
        return
    record = saved / _RECORD
    if record.is_file():
        for replaced in record.read_bytes().split(b"\0")[:-1]:
            _remove(folder, os.fsdecode(replaced))
        sync_folder(folder)
        record.unlink()
        sync_folder(saved)
    for name in sorted(os.listdir(saved), key=_rank, reverse=True):
        (saved / name).replace(folder / name)
    saved.rmdir()
    sync_folder(folder)


def _remove(folder: Path, name: str) -> None:
    if os.path.basename(name) != name or name in ("", ".", ".."):  # a folder from elsewhere may hold any record
        raise OSError(errno.EINVAL, f"{_RECORD} in it: expected names in the folder. Received: {name[:200]!r}")
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rank(name: str) -> tuple[bool, str]:
    return name not in _CONFIGURATIONS, name


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against others that finish a save there; the system lets go of it where this process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            filelock.lock_descriptor(descriptor, poll_interval=0.01)
        yield
    finally:
        os.close(descriptor)
