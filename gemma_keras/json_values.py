"""JSON from elsewhere: text that may be none, integers larger than any float, values of any kind in a message."""

import json
import math
import re
import reprlib
from pathlib import Path
from typing import Any

from gemma_keras.files import need_file

MAX_BYTES = 64_000_000
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 100


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size, no key of which occurs twice.

    Raises:
        OSError: it cannot be read, or is no file. ValueError: too large, or no JSON object; names the file.
    """
    need_file(file)
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{file}: expected at most {MAX_BYTES} bytes of JSON. Received: {size}")
    try:
        table = parse(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}.") from error
    if not isinstance(table, dict):
        raise ValueError(f"{file}: expected a JSON object. Received: {type(table).__name__}")
    return table


def parse(text: bytes | str, unique_keys: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        unique_keys: refuse a key that occurs twice in an object; else the last one counts.

    Raises:
        ValueError: no UTF-8, no JSON, nested deeper than Python reads, or text that no UTF-8 holds; in one line.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_without_duplicates if unique_keys else None)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("not valid JSON: half of a surrogate pair, which is no character") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def finite_number(value: Any) -> float | None:
    """A JSON number as a float; None for any other value, for NaN and infinities, and for what no float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shown(value: Any) -> str:
    """A value for a message: one short line, whatever it holds."""
    return _short.repr(value)
