"""Turns the schema's complaints into sentences for the author of a workflow: what is wrong, what was expected, what to do."""

import difflib
from collections.abc import Iterable
from typing import Any

import pydantic

from pipelines import configs
from pipelines.yaml_reader import KeyPath

_TYPES = {
    "float_type": "a number", "int_type": "a whole number", "int_from_float": "a whole number", "string_type": "a text",
    "bool_type": "true or false", "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    "model_attributes_type": "a mapping", "finite_number": "a finite number",
}  # fmt: skip
_TAGGED: dict[str, type[pydantic.BaseModel]] = {"<file>": configs.FileData, "<task>": configs.TaskData, "<scratch>": configs.ScratchModel}
_BLOCKS: dict[str, type[pydantic.BaseModel]] = {"tokenizer": configs.TokenizerTraining, "lora": configs.Lora}
_NOT_YET = {"algorithm": ("grpo", "ppo")}


def did_you_mean(name: str | int, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no known name is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def problems(error: pydantic.ValidationError, data: Any) -> list[tuple[KeyPath, bool, str]]:
    """Each complaint as (path into the file, whether it is about the key there, sentence)."""
    return [_problem(detail, data) for detail in error.errors(include_url=False)]


def describe(value: Any) -> str:
    """A value as it is called in messages, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text}" if isinstance(value, str) else text


def _problem(detail, data: Any) -> tuple[KeyPath, bool, str]:
    location, kind, received, context = detail["loc"], detail["type"], detail["input"], detail.get("ctx", {})
    path = _without_tags(location)
    if location and location[-1] == "[key]":
        return path, True, f"{path[-1]!r} is no stage name; expected small letters, digits and _, a letter first"
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1])
        return path, True, f"unknown key {path[-1]!r}.{did_you_mean(path[-1], known)} Known here: {', '.join(known)}"
    if kind == "missing":
        return path[:-1], True, f"missing key {path[-1]!r}{_meaning(location)}"
    if kind == "union_tag_not_found":
        if isinstance(received, dict):
            return path, True, f"missing key 'kind'; expected one of {', '.join(configs.KINDS)}"
        return path, False, f"expected a mapping with `kind`, got {describe(received)}"
    if kind == "union_tag_invalid":
        name = context.get("tag", "")
        return (*path, "kind"), False, f"unknown kind {name!r}.{did_you_mean(name, configs.KINDS)} Known: {', '.join(configs.KINDS)}"
    if kind == "literal_error":
        return path, False, _literal(path, received, context["expected"])
    if kind in _TYPES:
        hint = "; remove the quotes" if kind in ("float_type", "int_type") and _is_number(received) else ""
        return path, False, f"`{_dotted(path)}`: expected {_TYPES[kind]}, got {describe(received)}{hint}"
    if kind == "string_pattern_mismatch":
        return path, False, f"`{_dotted(path)}`: expected letters, digits, `.`, `_` and `-`, got {describe(received)}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return path, False, f"`{_dotted(path)}`: expected {message}, got {describe(received)}"


def _literal(path: KeyPath, received: Any, expected: str) -> str:
    known = [name.strip("' ") for name in expected.replace(" or ", ", ").split(", ")]
    if received in _NOT_YET.get(str(path[-1]), ()):
        return f"`{_dotted(path)}`: {received!r} is not available in this version; use {' or '.join(known)}"
    return f"`{_dotted(path)}`: expected {' or '.join(known)}, got {describe(received)}.{did_you_mean(str(received), known)}"


def _without_tags(location: tuple[str | int, ...]) -> KeyPath:
    """The schema names the branch of a union it took inside the location; the file knows nothing of it."""
    path = [part for part in location if not (isinstance(part, str) and part.startswith("<") and part.endswith(">"))]
    if len(path) > 2 and path[0] == "stages" and path[2] in configs.KINDS:
        del path[2]
    if path and path[-1] == "[key]":
        del path[-1]
    return tuple(path)


def _class_at(location: tuple[str | int, ...]) -> type[pydantic.BaseModel]:
    if not location:
        return configs.Workflow
    last = location[-1]
    if isinstance(last, int):
        return configs.WeightedReward
    if last in _TAGGED:
        return _TAGGED[last]
    if last in configs.KINDS:
        return configs.KINDS[last]
    return _BLOCKS.get(last, configs.Sizes)


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    return [field.alias or name for name, field in _class_at(location).model_fields.items()]


def _meaning(location: tuple[str | int, ...]) -> str:
    fields = {field.alias or name: field for name, field in _class_at(location[:-1]).model_fields.items()}
    field = fields.get(str(location[-1]))
    return f": {field.description}" if field is not None and field.description else ""


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)
