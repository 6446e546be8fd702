"""Single files under a temporary name until they are complete and on disk."""

import contextlib
import os
from pathlib import Path


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
