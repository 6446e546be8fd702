"""What a field names says its type; one walk finds it in any configuration, of kinds that nobody here has heard of.

    from_: Annotated[str | None, Names("policy", else_model=True)]
    compare: list[Annotated[str, Names("policy")]]
    ratings: Annotated[str | None, LocalFile(must_exist=True)]

From these marks come a stage's references and their checks, its key and the digests in it, absolute paths, the checks
of its data, and the arrows of the report. Works on plain data beside the class, so that the names in a stage whose
other settings are wrong are found too.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic

from pipelines.graders.answers import REWARD_FUNCTIONS

KeyPath = tuple[str | int, ...]
Product = Literal["policy", "reward_model", "preferences", "demonstrations", "rows"]

REWARD_MODEL_PREFIX = "reward_model:"
FUNCTION_PREFIX = "function:"
GOLD = "gold"
NAMES = "x-names"
"""Keyword of a JSON schema that holds the role of a name."""
TELLS = "x-tells"
"""Keyword of a JSON schema that marks a key by which a block is told from another that begins alike."""


DATA: tuple[Product, ...] = ("preferences", "demonstrations", "rows")
"""Products that are rows of data."""


@dataclasses.dataclass(frozen=True)
class Role:
    """What a name must be.

    Args:
        product: what a stage of that name must produce; None for anything. For "preferences" and "demonstrations" any
            "rows" will do as well, for "rows" any of `DATA`.
        is_model: True where a folder or file with a model will do as well.
        functions: shipped functions that may be named, which no stage makes; behind `function:` any other as well.
        is_prefixed: True where a stage or folder stands behind `reward_model:`, and anything else means a function.
        on_hub: True where a name on the hub will do as well.
    """

    product: Product | None
    is_model: bool = True
    functions: tuple[str, ...] = ()
    is_prefixed: bool = False
    on_hub: bool = False

    @property
    def products(self) -> tuple[Product, ...]:
        """What a stage of that name may produce; empty for anything."""
        if self.product in DATA:
            return DATA if self.product == "rows" else (self.product, "rows")
        return () if self.product is None else (self.product,)

    def is_function(self, name: str) -> bool:
        """True where `name` is a function, known or not, and no stage."""
        if self.is_prefixed:
            return not name.startswith(REWARD_MODEL_PREFIX)
        return name in self.functions or bool(self.functions) and name.startswith(FUNCTION_PREFIX)


ROLES: dict[str, Role] = {
    "policy": Role("policy"),
    "any_policy": Role("policy", on_hub=True),
    "reward_model": Role("reward_model"),
    "reward": Role("reward_model", functions=(GOLD, *REWARD_FUNCTIONS)),
    "member": Role("reward_model"),
    "rater": Role("reward_model", functions=(GOLD, *REWARD_FUNCTIONS), is_prefixed=True),
    "preferences": Role("preferences", is_model=False),
    "demonstrations": Role("demonstrations", is_model=False),
    "rows": Role("rows", is_model=False),
    "prompts": Role(None),
    "documents": Role(None, is_model=False),
}


@dataclasses.dataclass(frozen=True)
class Names:
    """Mark of a text that names a stage, a model or a function.

    Args:
        role: a key of `ROLES`.
        else_model: True where nothing means the workflow's `model`.
        unless: a key beside it with which it names nothing here, such as the address of a server that knows the name.
    """

    role: str
    else_model: bool = False
    unless: str | None = None

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """In the workflow's JSON schema, where the texts that explain a key find it."""
        return {**handler(core_schema), NAMES: self.role}


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """Mark of a text that is a file or folder beside the workflow, whose contents a stage reads.

    Args:
        must_exist: False where it may be something else as well, such as a hub id.
    """

    must_exist: bool = False


@dataclasses.dataclass(frozen=True)
class Marked:
    """A marked field: keys below the stage, e.g. ("reward", 0, "reward"), its mark, and its value as written, None
    where it is missing."""

    path: KeyPath
    mark: Names | LocalFile
    value: str | None


@dataclasses.dataclass(frozen=True)
class Reference:
    """A name inside a stage that points to another stage, a folder or a function.

    Args:
        path: keys below the stage. name: as written. role: what it must be.
    """

    path: KeyPath
    name: str
    role: Role

    @property
    def target(self) -> str:
        """The stage or folder meant, without `reward_model:`."""
        return self.name.removeprefix(REWARD_MODEL_PREFIX)

    @property
    def is_model(self) -> bool:
        """True where a model is meant, a policy or a reward model."""
        return self.role.product in ("policy", "reward_model") and not self.is_function

    @property
    def is_reward(self) -> bool:
        """True where something is trained on it or chosen by it, and for a member of any ensemble; a judge is none."""
        return any(self.role is ROLES[name] for name in ("reward", "member"))

    @property
    def is_function(self) -> bool:
        """True where a function is meant, so that it names no stage."""
        return self.role.is_function(self.name)


def marked(settings: type[pydantic.BaseModel], data: Mapping[str, Any]) -> Iterator[Marked]:
    """Every marked field, in the order of the class.

    Args:
        settings: the class. data: its values by YAML key, checked or not: what is of the wrong type is passed over.
    """
    for name, field in settings.model_fields.items():
        key = field.alias or name
        marks = [
            mark for mark in field.metadata if not (isinstance(mark, Names) and data.get(mark.unless or "") is not None)
        ]
        yield from _marked_in(field.annotation, tuple(marks), data.get(key), (key,))


def references(settings: type[pydantic.BaseModel], data: Mapping[str, Any]) -> list[Reference]:
    """The stages, models and functions that are named; as `marked`."""
    return [
        Reference(found.path, found.value, ROLES[found.mark.role])
        for found in marked(settings, data)
        if isinstance(found.mark, Names) and found.value is not None
    ]


def functions_of(settings: pydantic.BaseModel) -> list[str]:
    """The functions that checked settings name, each once, without `function:`."""
    named = [one.name.removeprefix(FUNCTION_PREFIX) for one in references_of(settings) if one.is_function]
    return list(dict.fromkeys(named))


def put(data: Any, path: KeyPath, value: str | None) -> None:
    """Write a value into nested mappings and lists."""
    *parents, last = path
    for key in parents:
        data = data[key]
    data[last] = value


def plain(settings: pydantic.BaseModel) -> dict[str, Any]:
    """Settings as plain JSON under their YAML keys, defaults filled in."""
    return settings.model_dump(mode="json", by_alias=True)


def references_of(settings: pydantic.BaseModel) -> list[Reference]:
    """The references of settings that have been checked."""
    return references(type(settings), plain(settings))


def input_stages(settings: pydantic.BaseModel, stage_names: set[str]) -> list[str]:
    """The stages whose folders a stage reads, each once."""
    named = [one.target for one in references_of(settings) if not one.is_function and one.target in stage_names]
    return list(dict.fromkeys(named))


def uses_workflow_model(settings: pydantic.BaseModel) -> bool:
    """True where a name is left out that the workflow's `model` stands in for."""
    found = marked(type(settings), plain(settings))
    return any(isinstance(one.mark, Names) and one.mark.else_model and one.value is None for one in found)


def blocks(settings: pydantic.BaseModel, path: KeyPath = ()) -> Iterator[tuple[KeyPath, pydantic.BaseModel]]:
    """These settings and all that are nested in them, each with the keys that lead to it."""
    yield path, settings
    for name, value in settings:
        key = type(settings).model_fields[name].alias or name
        for below, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(item, pydantic.BaseModel):
                yield from blocks(item, (*path, key) if below is None else (*path, key, below))


def leaves(annotation: Any, tag: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """The branches of a union, however deep, each with the tag that the schema puts into the place of a complaint."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *marks = typing.get_args(annotation)
        tags = [mark.tag for mark in marks if isinstance(mark, pydantic.Tag)]
        yield from leaves(inner, tags[0] if tags else tag)
    elif origin in (typing.Union, types.UnionType):
        for branch in typing.get_args(annotation):
            yield from leaves(branch)
    elif is_settings(annotation) and typing.get_origin(kind := _kind_of(annotation)) is Literal:
        yield typing.get_args(kind)[0], annotation
    else:
        yield tag, annotation


def is_settings(annotation: Any) -> bool:
    """True for a class of settings."""
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _kind_of(settings: type[pydantic.BaseModel]) -> Any:
    return settings.model_fields["kind"].annotation if "kind" in settings.model_fields else None


def _marked_in(annotation: Any, marks: tuple[Any, ...], value: Any, path: KeyPath) -> Iterator[Marked]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *more = typing.get_args(annotation)
        yield from _marked_in(inner, (*marks, *more), value, path)
    elif origin in (typing.Union, types.UnionType):
        for branch in typing.get_args(annotation):
            yield from _marked_in(branch, marks, value, path)
    elif origin is list and isinstance(value, list):
        (item,) = typing.get_args(annotation)
        for index, element in enumerate(value):
            yield from _marked_in(item, (), element, (*path, index))
    elif is_settings(annotation) and isinstance(value, Mapping):
        for found in marked(annotation, value):
            yield dataclasses.replace(found, path=(*path, *found.path))
    elif (annotation is str and isinstance(value, str)) or (annotation is types.NoneType and value is None):
        yield from (Marked(path, mark, value) for mark in marks if isinstance(mark, Names | LocalFile))
