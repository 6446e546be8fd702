"""Every key of a workflow with its type, default, range and meaning in words, read from the JSON schema.

A walk over the schema finds the keys of unions, lists and nested blocks alike, of kinds that nobody here has heard of.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipelines.schema.base import Settings, StageConfig
from pipelines.schema.roles import NAMES, TELLS
from pipelines.stages.registry import KINDS
from pipelines.workflow.json_schema import workflow_schema
from pipelines.workflow.schema import REPEAT

NEEDED = "needed"
"""In the place of a default: the key must be given."""

_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_COUNTED = ("text", "whole number", "number")
_LIMITS = {
    "minimum": "at least {}", "exclusiveMinimum": "over {}", "maximum": "at most {}", "exclusiveMaximum": "under {}",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        path: from its stage, or from the workflow: ("lora", "rank"). Places in a list are left out.
        type: such as "number". default: "" where there is none, or `NEEDED`. range: may be "".
        meaning: its description. roles: keys of `ROLES` that its names have, each once.
        blocks: the mappings that may stand there, or in the list there.
    """

    path: tuple[str, ...]
    type: str
    default: str
    range: str
    meaning: str
    roles: tuple[str, ...] = ()
    blocks: tuple["Block", ...] = ()

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path[-1]


@dataclasses.dataclass(frozen=True)
class Block:
    """A mapping and its keys: a workflow, a stage of a kind, or what stands below one of their keys.

    Attributes:
        title: how it is written, `lora: {rank: …}`, or "" of a workflow or stage. meaning: what its class says.
        fixed: keys with one value alone, which tell it from others in its place: {"name": "grpo"}.
    """

    title: str
    meaning: str
    keys: tuple[Key, ...]
    fixed: Mapping[str, Any]

    def all_keys(self) -> Iterator[tuple["Block", Key]]:
        """Its keys, each with the block that it stands in, and followed by those below it."""
        for key in self.keys:
            yield self, key
            for below in key.blocks:
                yield from below.all_keys()

    def all_blocks(self) -> Iterator["Block"]:
        """What stands below its keys, each followed by what is below that."""
        for key in self.keys:
            for below in key.blocks:
                yield below
                yield from below.all_blocks()


@functools.cache
def workflow_block() -> Block:
    """The workflow's own keys; `stages` without what stands in them."""
    return _block(workflow_schema(), (), "")


@functools.cache
def kind_blocks() -> dict[str, Block]:
    """Kind → the keys of its stages, the kind's own before those that it shares with others."""
    found = {}
    for kind, block in _entries().items():
        if kind == REPEAT:
            continue
        order = {name: place for place, name in enumerate(_own_first(KINDS[kind]))}
        found[kind] = dataclasses.replace(block, keys=tuple(sorted(block.keys, key=lambda key: order[key.name])))
    return found


@functools.cache
def loop_block() -> Block:
    """The keys of a loop; `stages` without what stands in them."""
    return _entries()[REPEAT]


def _entries() -> dict[str, Block]:
    """Kind → what may stand as an entry of `stages`, a loop among them."""
    (entry,) = workflow_schema()["properties"]["stages"]["patternProperties"].values()
    blocks = (_block(option, (), "") for option in _options(entry))
    return {block.fixed["kind"]: block for block in blocks}


def own_keys(kind: str) -> tuple[Key, ...]:
    """The keys that a kind's class itself declares, `kind` left out."""
    own = _declared(KINDS[kind])
    return tuple(key for key in kind_blocks()[kind].keys if key.name in own and key.name != "kind")


def _own_first(config: type[StageConfig]) -> list[str]:
    """YAML keys of a kind: `kind`, those of its class, then those of the classes that this is built on."""
    names = [name for one in config.__mro__ for name in _declared(one)]
    return list(dict.fromkeys(["kind", *names]))


def _declared(config: type) -> list[str]:
    fields: Mapping[str, Any] = config.model_fields if issubclass(config, Settings) else {}
    return [fields[name].alias or name for name in inspect.get_annotations(config) if name in fields]


def _options(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The branches of a union, however deep, references followed."""
    if "$ref" in schema:
        yield from _options(workflow_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
        return
    branches = [branch for word in ("anyOf", "oneOf", "allOf") for branch in schema.get(word, ())]
    for branch in branches:
        yield from _options(branch)
    if not branches:
        yield schema


def _block(schema: Mapping[str, Any], path: tuple[str, ...], title: str) -> Block:
    properties, needed = schema["properties"], schema.get("required", ())
    keys = tuple(_key((*path, name), below, name in needed) for name, below in properties.items())
    meaning = " ".join(schema.get("description", "").split("\n\n")[0].split())
    return Block(title, meaning, keys, _fixed(schema))


def _fixed(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: below["const"] for name, below in schema.get("properties", {}).items() if "const" in below}


def _key(path: tuple[str, ...], schema: Mapping[str, Any], is_needed: bool) -> Key:
    options = [option for option in _options(schema) if option.get("type") != "null"]
    places = [(option, "") for option in options]
    places += [
        (item, "- ") for option in options if option.get("type") == "array" for item in _options(option["items"])
    ]
    blocks = [
        _block(option, path, f"{'.'.join(path)}: {mark}{_written(option)}")
        for option, mark in places
        if set(option.get("properties", ())) - set(_fixed(option))  # else it is a name that has no options
    ]
    ranges = dict.fromkeys(text for option, _ in places for text in _limits(option))
    roles = dict.fromkeys(_roles(schema))
    return Key(
        path, _types(options), _default(schema, is_needed), ", ".join(ranges), schema.get("description", ""),
        tuple(roles), tuple(blocks),
    )  # fmt: skip


def _types(options: Iterable[Mapping[str, Any]]) -> str:
    """What may stand there: `a`, `b` or number. A block of a name that may stand there alone is a `{name: …}`."""
    options = list(options)
    values = [value for option in options for value in (*option.get("enum", ()), *_constant(option))]
    found = [f"`{value}`" for value in values]
    for option in options:
        if "properties" in option:
            fixed = _fixed(option)
            is_option = bool(fixed) and set(fixed.values()) <= set(values)
            found.append(f"`{{{next(iter(fixed))}: …}}`" if is_option else f"`{_written(option)}`")
        elif option.get("type") == "array":
            items = list(_options(option["items"]))
            one = _types(items)
            found.append(f"list of {one}s" if one in _COUNTED else f"list of {one}")
        elif "enum" not in option and "const" not in option:
            found.append(_TYPES.get(option.get("type", ""), "mapping"))
    *others, last = dict.fromkeys(found)
    return f"{', '.join(others)} or {last}" if others else last


def _constant(option: Mapping[str, Any]) -> tuple[Any, ...]:
    return (option["const"],) if "const" in option else ()


def _written(option: Mapping[str, Any]) -> str:
    """How a block begins: the key that tells it from others, else the first that it needs, else its first; and the key
    that tells it from another that begins so."""
    fixed, properties = _fixed(option), option["properties"]
    first = next(iter(fixed), None) or next((name for name in properties if name in option.get("required", ())), None)
    first = first or next(iter(properties))
    telling = "".join(f", {name}: …" for name, below in properties.items() if TELLS in below)
    return f"{{{first}: {fixed.get(first, '…')}{telling}}}"


def _default(schema: Mapping[str, Any], is_needed: bool) -> str:
    return NEEDED if is_needed else "" if schema.get("default") is None else _value(schema["default"])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_value(below)}' for name, below in value.items() if below is not None)}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(option: Mapping[str, Any]) -> Iterator[str]:
    least, most = option.get("minItems"), option.get("maxItems")
    if least is not None and least == most:
        yield f"{least} items"
    elif least is not None:
        yield f"{least} or more items"
    if "pattern" in option:
        yield f"`{option['pattern']}`"
    yield from (text.format(_value(option[word])) for word, text in _LIMITS.items() if word in option)


def _roles(schema: Mapping[str, Any]) -> Iterator[str]:
    """The roles of the names that a value, or an item of it, may be; blocks below have keys of their own for that."""
    if NAMES in schema:
        yield schema[NAMES]
    for branch in [branch for word in ("anyOf", "oneOf") for branch in schema.get(word, ())]:
        yield from _roles(branch)
    yield from _roles(schema["items"]) if "items" in schema else ()
