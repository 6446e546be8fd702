"""Plain data as text, in both directions between us and a sandbox.

A value arrives as exactly one of None, bool, int, float, complex, str, bytes, list, tuple, dict, set and frozenset,
down to its innermost parts. Of a subclass, such as Counter, what it holds arrives, without its class: an object with an
`__eq__` of its own does not get through.

The text is JSON, in which what JSON does not know is an object of one key, such as `{"tuple": [1, 2]}`. It is not read
by `ast.literal_eval`: a deeply nested text can crash that together with the process.
"""

import json
from collections.abc import Callable
from typing import Any

MAX_BYTES = 4 << 20
"""Of one value as text."""
MAX_DEPTH = 50
MAX_HASHED = 10_000
"""Members of one set or dict: so many whose hashes collide take a tenth of a second, not minutes."""


class NotPlain(ValueError):
    """A value that is no plain data, or too much of it, or a text that stands for none."""


def to_text(value: Any) -> str:
    """A value as one line of ASCII.

    Raises:
        NotPlain: it is no plain data, nests deeper than `MAX_DEPTH`, or is too long.
    """
    try:
        text = json.dumps(_packed(value, 0))
    except (RecursionError, ValueError) as error:  # an int of over 4,300 digits too
        raise NotPlain(str(error)) from error
    if len(text) > MAX_BYTES:
        raise NotPlain(f"{len(text)} characters, expected at most {MAX_BYTES}")
    return text


def from_text(text: str | bytes) -> Any:
    """The value of a text of `to_text`, which need not be one.

    Raises:
        NotPlain: the text stands for no value.
    """
    if len(text) > MAX_BYTES:
        raise NotPlain(f"{len(text)} characters, expected at most {MAX_BYTES}")
    try:
        return _unpacked(json.loads(text), 0)
    except (RecursionError, ValueError, TypeError, MemoryError) as error:  # TypeError: a list as a key
        raise NotPlain(str(error)) from error


_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_AS_LIST: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_OF_LIST: dict[str, Callable[[list], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _packed(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotPlain(f"nested deeper than {MAX_DEPTH}")
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_packed(one, depth + 1) for one in value]
    if kind in _AS_LIST:
        return {_AS_LIST[kind]: [_packed(one, depth + 1) for one in value]}
    if kind is dict:
        return {"dict": [[_packed(key, depth + 1), _packed(one, depth + 1)] for key, one in value.items()]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    for plain in _PLAIN:
        if issubclass(kind, plain):
            return _packed(plain(value), depth)
    raise NotPlain(f"a {kind.__name__} is no plain data")


def _unpacked(read: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotPlain(f"nested deeper than {MAX_DEPTH}")
    if isinstance(read, list):
        return [_unpacked(one, depth + 1) for one in read]
    if not isinstance(read, dict):
        return read
    if len(read) != 1:
        raise NotPlain(f"expected one key, got {len(read)}")
    ((kind, inside),) = read.items()
    if kind == "bytes" and isinstance(inside, str):
        return bytes.fromhex(inside)
    if not isinstance(inside, list):
        raise NotPlain(f"no {kind[:20]!r}")
    if kind == "complex" and [type(one) for one in inside] == [float, float]:
        return complex(*inside)
    if kind != "tuple" and len(inside) > MAX_HASHED:
        raise NotPlain(f"{len(inside)} members, expected at most {MAX_HASHED}")
    if kind in _OF_LIST:
        return _OF_LIST[kind]([_unpacked(one, depth + 1) for one in inside])
    if kind == "dict" and all(isinstance(pair, list) and len(pair) == 2 for pair in inside):
        return {_unpacked(key, depth + 1): _unpacked(one, depth + 1) for key, one in inside}
    raise NotPlain(f"no {kind[:20]!r}")
