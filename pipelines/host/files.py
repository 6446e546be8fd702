"""JSON files, of which a reader sees the old or the new contents, never a part; and the errors of a full disk."""

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gemma_keras.files import need_file, write_text
from pipelines.host.errors import DataError, DiskError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS})


def is_disk_error(error: BaseException | None) -> bool:
    """True where an error, or the one it was raised from, says that no more can be written."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def disk_error(error: BaseException, folder: Path) -> DiskError:
    """The error shown to the user: what happened, where, and what to do."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    remedy = "mend the disk" if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EROFS) else "make room"
    return DiskError(
        f"{folder}: cannot write ({reason}). Finished stages are kept; {remedy} and run the same command again"
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the given order; NaN stays NaN, as in the metrics."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        # A path in another encoding than the system's: UTF-8 cannot hold what Python makes of it, an escape can.
        text = json.dumps(value, indent=2)
    write_text(path, text + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows atomically, a JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: the file is missing or no JSON.
    """
    try:
        need_file(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
