"""Settings that are chosen by a name and may have options: `algorithm: rloo`, or `algorithm: {name: rloo, ...}`.

A name alone is what most workflows say, and what they said before a choice had options; so it stays the short form of
the mapping, in a file as in what is written back.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import Discriminator, Field, Tag

from pipelines.schema.base import Settings
from pipelines.schema.roles import is_settings, leaves

NAME = "name"


class Named(Settings):
    """One choice with its options, which a subclass adds. The class says its name, or `named` gives it one."""

    name: str = Field("", description="Which one.")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {NAME: value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Of the mapping, and of the name that may stand for it."""
        return {"anyOf": [{"const": cls.model_fields[NAME].default}, handler(core_schema)]}

    @pydantic.model_serializer(mode="wrap")
    def _short(self, write: pydantic.SerializerFunctionWrapHandler) -> Any:
        found = write(self)
        return found[NAME] if list(found) == [NAME] else found


def named(name: str, options: type[Named]) -> type[Named]:
    """The class of a choice of that name: `options` that know their `name`."""
    fields: dict[str, Any] = {NAME: (Literal[name], Field(name, description=Named.model_fields[NAME].description))}
    return pydantic.create_model(options.__name__, __base__=options, **fields)


def one_of(choices: Mapping[str, type[Named]]) -> Any:
    """The type of a field that takes one of some choices, by name or as a mapping.

    Args:
        choices: what `named` made, by name.
    """
    branches = tuple(Annotated[choice, Tag(name)] for name, choice in choices.items())
    return Annotated[Union[branches], Discriminator(_name_of)]  # noqa: UP007  a tuple of branches


def named_fields(settings: type[pydantic.BaseModel]) -> dict[str, str | None]:
    """The YAML keys of settings at which a name may stand for a mapping → the name that is the default."""
    found: dict[str, str | None] = {}
    for name, field in settings.model_fields.items():
        classes = [leaf for _, leaf in leaves(field.annotation)]
        if any(is_settings(one) and issubclass(one, Named) for one in classes):
            found[field.alias or name] = field.default.name if isinstance(field.default, Named) else None
    return found


def _name_of(value: Any) -> Any:
    if isinstance(value, Named):
        return value.name
    return value.get(NAME) if isinstance(value, Mapping) else value if isinstance(value, str) else None
