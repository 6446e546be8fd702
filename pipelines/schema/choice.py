"""A key whose value is a name, or that name with options of its own: `loss: dpo`, `loss: {name: dpo, beta: 0.05}`."""

import functools
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Discriminator, Tag
from pydantic.json_schema import SkipJsonSchema

from pipelines.schema.base import Settings

_NAME, _UNKNOWN = "<name>", "<unknown>"


def choice(options: Mapping[str, type[Settings]]) -> Any:
    """The type of such a key.

    Args:
        options: name → its options, each with a field `name: Literal[name]` and a default for every other.

    Returns:
        An annotation for a field of `Settings`; what it holds is a name or one of these options, see `chosen`.
    """
    names = Literal[tuple(options)]  # type: ignore[valid-type]
    # Where the name is none of them a literal's complaint says which there are.
    unknown = pydantic.create_model("Unknown", __base__=Settings, __cls_kwargs__={"extra": "ignore"}, name=(names, ...))
    branches = [Annotated[names, Tag(_NAME)], Annotated[SkipJsonSchema[unknown], Tag(_UNKNOWN)]]
    branches += [Annotated[one, Tag(name)] for name, one in options.items()]

    def tag(value: Any) -> str:
        if isinstance(value, Mapping):
            name = value.get("name")
            return name if isinstance(name, str) and name in options else _UNKNOWN
        return value.name if isinstance(value, Settings) else _NAME  # type: ignore[attr-defined]

    return Annotated[functools.reduce(operator.or_, branches), Discriminator(tag)]


def chosen(value: Any, options: Mapping[str, type[Settings]]) -> Any:
    """The options that a key of such a type holds; the defaults where it is a name alone."""
    return options[value](name=value) if isinstance(value, str) else value
