"""Whether a text is JSON, and valid by a JSON Schema."""

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PACKAGE, EXTRA = "jsonschema", "json-schema"


def json_check(schema: Mapping[str, Any]) -> Callable[[str], float]:
    """A function of a text: 1.0 where it is JSON and nothing else, valid by a schema, else 0.0.

    NaN and infinity are no JSON. `format` is not looked at, as is JSON Schema's default.

    Args:
        schema: one that `schema_problem` has nothing against; an empty one allows any JSON, and needs no package.
    """
    is_valid = _validator(schema).is_valid if schema else lambda value: True

    def check(text: str) -> float:
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return 0.0
        return float(is_valid(value))

    return check


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a schema, or None. A `$ref` must lead to a place in it: nothing is fetched.

    Raises:
        ModuleNotFoundError: the package `jsonschema` is not installed.
    """
    if not schema:
        return None
    from jsonschema.exceptions import SchemaError

    try:
        _validator(schema).check_schema(schema)
    except SchemaError as error:
        place = "/".join(map(str, error.path))
        return f"no valid JSON Schema: {error.message}{place and f' (at {place})'}"
    for reference in _values(schema, ("$ref", "$dynamicRef", "$recursiveRef")):
        if not reference.startswith("#"):
            return f"$ref {reference!r} is elsewhere; expected a place in this schema, such as '#/$defs/name'"
        if not _leads_somewhere(reference[1:], schema):
            return f"$ref {reference!r} leads nowhere in this schema"
    return None


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for

    return validator_for(schema, default=Draft202012Validator)(schema)


def _leads_somewhere(fragment: str, schema: Any) -> bool:
    """Whether a JSON pointer or an anchor is one of this schema."""
    if fragment and not fragment.startswith("/"):
        return fragment in _values(schema, ("$anchor", "$dynamicAnchor"))
    for part in urllib.parse.unquote(fragment).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and key.isdecimal() and int(key) < len(schema):
            schema = schema[int(key)]
        elif isinstance(schema, Mapping) and key in schema:
            schema = schema[key]
        else:
            return False
    return True


def _values(schema: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """The texts behind these keys, however deep."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in keys and isinstance(value, str):
                yield value
            else:
                yield from _values(value, keys)
    elif isinstance(schema, list):
        for value in schema:
            yield from _values(value, keys)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
