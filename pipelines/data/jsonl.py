"""Reads JSON lines, every fault with its file and line.

Our own reader, because general ones call a cut line "row 1", fill missing keys with None and let mixed types pass.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma_keras.files import need_file
from pipelines.data.rejects import BadRow, Rejects
from pipelines.host.errors import DataError

_ARRAY = "a JSON array, expected a JSON object a line. Rewrite the file, e.g.: jq -c '.[]' OLD.json > NEW.jsonl"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of data.

    Args:
        values: column name -> value.
        origin: where it stands, "file:line".
    """

    values: dict[str, Any]
    origin: str


def read_jsonl(path: Path, rejects: Rejects | None = None) -> Iterator[Row]:
    """Yields the rows of a JSON lines file in order; blank lines are skipped.

    Args:
        path: UTF-8 text, one JSON object a line; a byte order mark is allowed.
        rejects: what to do with bad lines, default strict.

    Raises:
        DataError: the file cannot be read, or strict and a line is bad.
    """
    rejects = rejects or Rejects()
    try:
        need_file(path)
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                origin = f"{path}:{number}"
                with rejects.guard(origin, line):
                    if number == 1 and line.lstrip().startswith(b"["):
                        raise BadRow(_ARRAY)
                    yield Row(parse_line(line), origin)
    except OSError as error:
        raise DataError(f"{path}:1: cannot be read: {error.strerror or error}. Expected a JSON lines file.") from None


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object in one line.

    Raises:
        BadRow: no UTF-8, no JSON, cut off, no object, a key twice, NaN or infinity, half of a surrogate pair.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"invalid UTF-8 at byte {error.start}: {error.reason}. Save the file as UTF-8.") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        raise BadRow(f"{'cut off line' if cut else 'bad JSON'}: {error.msg} at column {error.colno}.") from None
    except UnicodeEncodeError:
        raise BadRow("text with half of a surrogate pair (\\ud800 to \\udfff alone): no valid Unicode.") from None
    except RecursionError:
        raise BadRow("bad JSON: nested too deeply.") from None
    except ValueError as error:
        if "Out of range float" in str(error):
            raise BadRow("a number too large for a float: expected finite numbers.") from None
        raise BadRow(f"bad JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadRow(
            f"expected a JSON object with named columns, got {type(value).__name__}. Write one {{...}} a line."
        )
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow(f"key {twice!r} stands twice.")
    return values


def _refuse_constant(name: str) -> Any:
    raise BadRow(f"{name} is no JSON number: expected finite numbers.")
