"""Turns the schema's complaints into sentences for the author of a workflow: what is wrong, what was expected, what to
do."""

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from pydantic.fields import FieldInfo

from pipelines.graders.answers import REWARD_FUNCTIONS
from pipelines.host.spelling import describe, did_you_mean
from pipelines.schema.functions import FUNCTIONS, NO_FUNCTION
from pipelines.schema.named import NAME
from pipelines.schema.roles import KeyPath, is_settings, leaves
from pipelines.stages.registry import KINDS, hint_at_kind
from pipelines.workflow.schema import REPEAT, WorkflowFile

_TYPES = {
    "float_type": "a number", "int_type": "a whole number", "int_from_float": "a whole number", "string_type": "a text",
    "bool_type": "true or false", "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    "model_attributes_type": "a mapping", "finite_number": "a finite number",
}  # fmt: skip

Location = tuple[str | int, ...]
Complaint = tuple[KeyPath, bool, str]
"""Path into the file, whether it is about the key there, sentence."""


def problems(error: pydantic.ValidationError) -> list[Complaint]:
    """Each complaint about a workflow."""
    return [_problem(detail) for detail in error.errors(include_url=False)]


def _problem(detail: Mapping[str, Any]) -> Complaint:
    location, kind, received, context = detail["loc"], detail["type"], detail["input"], detail.get("ctx", {})
    if location and location[-1] == "[key]":
        path = _follow(location[:-1])[0]
        return path, True, f"{path[-1]!r} is no stage name; expected small letters, digits and _, a letter first"
    path, fields = _follow(location)
    if kind == "extra_forbidden":
        known = list(_fields_below(location[:-1]))
        return path, True, f"unknown key {path[-1]!r}.{did_you_mean(path[-1], known)} Known here: {', '.join(known)}"
    if kind == "missing":
        meaning = next((f": {field.description}" for field in fields if field.description), "")
        return path[:-1], True, f"missing key {path[-1]!r}{meaning}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        if context["discriminator"] == "'kind'":
            return _kind(path, received, context.get("tag"))
        return _name(path, _descend(location)[1], received)
    if kind == NO_FUNCTION:
        return _no_function(path, received)
    if kind == "literal_error":
        known = [name.strip("' ") for name in context["expected"].replace(" or ", ", ").split(", ")]
        return path, False, _literal(path, received, known)
    if kind in _TYPES:
        hint = "; remove the quotes" if kind in ("float_type", "int_type") and _is_number(received) else ""
        return path, False, f"`{_dotted(path)}`: expected {_TYPES[kind]}, got {describe(received)}{hint}"
    if kind == "string_pattern_mismatch":
        return path, False, f"`{_dotted(path)}`: expected letters, digits, `.`, `_` and `-`, got {describe(received)}"
    if kind == "too_short":
        least, items = context["min_length"], "item" if context["min_length"] == 1 else "items"
        return path, False, f"`{_dotted(path)}`: expected at least {least} {items}, got {context['actual_length']}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return path, False, f"`{_dotted(path)}`: expected {message}, got {describe(received)}"


def _no_function(path: KeyPath, received: Mapping[str, Any]) -> Complaint:
    known = f"Known: {', '.join(FUNCTIONS)}"
    if "function" not in received:
        return path, True, f"missing key 'function': which one these are the settings of. {known}"
    name = received["function"]
    hint = did_you_mean(str(name), FUNCTIONS)
    if str(name) in REWARD_FUNCTIONS:
        hint = f" {name} takes no settings: write its name alone."
    return (*path, "function"), False, f"unknown function {name!r}.{hint} {known}"


def _kind(path: KeyPath, received: Any, tag: Any) -> Complaint:
    """A stage without a kind that there is."""
    if tag == REPEAT:  # which stands in no list of kinds
        return (*path, "kind"), False, f"a loop cannot hold another one; expected one of {', '.join(KINDS)}"
    if tag is not None:
        hint = hint_at_kind(str(tag)) or did_you_mean(tag, KINDS)
        return (*path, "kind"), False, f"unknown kind {tag!r}.{hint} Known: {', '.join(KINDS)}"
    if isinstance(received, dict):
        return path, True, f"missing key 'kind'; expected one of {', '.join(KINDS)}"
    return path, False, f"expected a mapping with `kind`, got {describe(received)}"


def _name(path: KeyPath, here: list[Any], received: Any) -> Complaint:
    """A choice, by name or as a mapping with its `name` (`pipelines.schema.named`), that there is not."""
    known = [name for annotation in here for name, _ in leaves(annotation) if name is not None]
    if isinstance(received, dict) and NAME not in received:
        return path, True, f"missing key {NAME!r}; expected one of {', '.join(known)}"
    place = (*path, NAME) if isinstance(received, dict) else path
    named = received[NAME] if isinstance(received, dict) else received
    return place, False, _literal(place, named, known)


def _literal(path: KeyPath, received: Any, known: list[str]) -> str:
    hint = did_you_mean(str(received), known)
    return f"`{_dotted(path)}`: expected {' or '.join(known)}, got {describe(received)}.{hint}"


def _follow(location: Location) -> tuple[KeyPath, list[FieldInfo]]:
    """Where in the file a complaint's location is, and the fields of that key.

    The schema names the branch of a union that it took inside the location; the file knows nothing of it.
    """
    path, _, fields = _descend(location)
    return path, fields


def _fields_below(location: Location) -> dict[str, FieldInfo]:
    """The fields of the block at a location, by YAML key."""
    _, here, _ = _descend(location)
    classes = [leaf for annotation in here for _, leaf in leaves(annotation) if is_settings(leaf)]
    return {field.alias or name: field for one in classes for name, field in one.model_fields.items()}


def _descend(location: Location) -> tuple[KeyPath, list[Any], list[FieldInfo]]:
    path: list[str | int] = []
    here: list[Any] = [WorkflowFile]
    fields: list[FieldInfo] = []
    for part in location:
        options = [leaf for annotation in here for leaf in leaves(annotation)]
        tagged = [annotation for tag, annotation in options if tag is not None and tag == part]
        if tagged:
            here = tagged
            continue
        path.append(part)
        fields = [field for _, annotation in options for field in _field(annotation, part)]
        here = [child for _, annotation in options for child in _children(annotation, part)]
    return tuple(path), here, fields


def _field(annotation: Any, key: str | int) -> Iterator[FieldInfo]:
    if is_settings(annotation):
        yield from (field for name, field in annotation.model_fields.items() if key == (field.alias or name))


def _children(annotation: Any, key: str | int) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is dict:
        yield typing.get_args(annotation)[1]
    elif origin is list:
        yield typing.get_args(annotation)[0]
    else:
        yield from (field.annotation for field in _field(annotation, key))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)
