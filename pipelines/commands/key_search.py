"""Which key a user means by a word such as `stages.policy.kl_weight` or `lora.rank`, and its values in a workflow."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.host.errors import ConfigError
from pipelines.host.spelling import describe, did_you_mean
from pipelines.schema.roles import KeyPath
from pipelines.stages.registry import algorithms, hint_at_kind
from pipelines.workflow import yaml_reader
from pipelines.workflow.key_table import NEEDED, Block, Key, kind_blocks, workflow_block
from pipelines.workflow.yaml_reader import Document


@dataclasses.dataclass(frozen=True)
class Found:
    """A key that a word may mean.

    Args:
        owner: the kind whose stages have it; "" for the workflow itself. block: what it stands in.
        stage: the stage that was named; "" for any.
    """

    owner: str
    block: Block
    key: Key
    stage: str = ""


@dataclasses.dataclass(frozen=True)
class _Reading:
    """One way to read a word.

    Args:
        owners: kind → its keys, "" for the workflow's. before: what names stage or kind, with its dot.
        rest: the key's path. stage: see `Found`.
    """

    owners: Mapping[str, Block]
    before: str
    rest: tuple[str, ...]
    stage: str = ""

    def all_keys(self) -> list[Found]:
        return [Found(owner, *pair, self.stage) for owner, block in self.owners.items() for pair in block.all_keys()]


def find(word: str, document: Document | None = None) -> list[Found]:
    """All keys that a word may mean, those of exactly that path before those that end in it.

    Args:
        word: keys with dots between; a stage's or a kind's name may stand before them. Numbers, which are places in a
            list, are passed over.
        document: the workflow that it is about, if there is one; a stage that is named must be in it.

    Raises:
        ConfigError: there is none; says which is meant, perhaps.
    """
    readings = list(_readings([part for part in word.split(".") if not part.isdecimal()], document))
    for reading in readings:
        every, rest = reading.all_keys(), reading.rest
        exact = [found for found in every if found.key.path == rest]
        ending = [found for found in every if rest and found.key.path[-len(rest) :] == rest]
        if exact or ending:
            return exact or ending
    raise ConfigError(_unknown(word, readings[0]))


def named_kind(word: str, document: Document) -> str | None:
    """The kind of the stage that a word names, behind `stages.` or, where no key is called so, alone; else None."""
    stages, name = _kinds(document), word.removeprefix("stages.")
    is_key = any(key.name == word for block in kind_blocks().values() for _, key in block.all_keys())
    return _kind_of(name, stages, document) if name in stages and not is_key else None


def read(file: Path) -> Document:
    """A workflow, right or wrong, as long as it is YAML.

    Raises:
        ConfigError: it is not, or no mapping.
    """
    document = yaml_reader.read_file(file)
    if not isinstance(document.value, dict):
        place = document.where(())
        raise ConfigError(f"{place}: expected a mapping with name and stages, got {describe(document.value)}")
    return document


def fitting(found: Sequence[Found], document: Document) -> list[Found]:
    """Those whose block is what the workflow has in that place; all where it has none of them."""
    kept = [one for one in found if any(_fits(one.block, parent) for _, parent in _parents(one, document))]
    return kept or list(found)


def values(found: Sequence[Found], document: Document) -> list[str]:
    """A line for each place of the workflow where the keys stand or could stand, in Markdown."""
    stages = list(_kinds(document))
    lines = {
        _value(one, path, parent, document): stages.index(str(path[1])) if path[:1] == ("stages",) else -1
        for one in found
        for path, parent in _parents(one, document)
    }
    return sorted(lines, key=lambda line: lines[line])


def _value(found: Found, path: KeyPath, parent: Any, document: Document) -> str:
    place, value, default = (*path, found.key.name), None, ""
    if isinstance(parent, dict):
        value = parent.get(found.key.name)
        default = f", so it is {found.key.default}" if found.key.default not in ("", NEEDED) else ""
    elif path:  # the block itself is missing, or a text stands there
        place, value = path, parent
    dotted, where = ".".join(map(str, place)), document.where(place)
    if value is None:
        return f"- {where}: `{dotted}` is not set{default}\n"
    return f"- {where}: `{dotted}: {json.dumps(value, ensure_ascii=False)}`\n"


def _readings(parts: Sequence[str], document: Document | None) -> Iterator[_Reading]:
    """The likeliest first: a stage may be called like a key."""
    kinds = kind_blocks()
    if parts[:1] == ["stages"] and len(parts) > 2:
        name, before, rest = parts[1], f"stages.{parts[1]}.", tuple(parts[2:])
        kind = None if document is None else _kind_of(name, _kinds(document), document)
        yield _Reading(kinds if kind is None else {kind: kinds[kind]}, before, rest, name)
        return
    if len(parts) > 1:
        name, before, rest = parts[0], f"{parts[0]}.", tuple(parts[1:])
        stages = {} if document is None else _kinds(document)
        if document is not None and name in stages:
            kind = _kind_of(name, stages, document)
            yield _Reading({kind: kinds[kind]}, before, rest, name)
        if name in kinds:
            yield _Reading({name: kinds[name]}, before, rest)
    yield _Reading({"": workflow_block(), **kinds}, "", tuple(parts))


def _kinds(document: Document) -> dict[str, str]:
    """Stage → kind as written, perhaps none that there is."""
    stages = document.value.get("stages")
    stages = stages if isinstance(stages, dict) else {}
    return {name: str(stage.get("kind")) if isinstance(stage, dict) else "" for name, stage in stages.items()}


def _kind_of(stage: str, stages: Mapping[str, str], document: Document) -> str:
    place = document.where(("stages",), of_key=True)
    if stage not in stages:
        raise ConfigError(f"{place}: no stage {stage!r}.{did_you_mean(stage, stages)} Stages: {', '.join(stages)}")
    kind = stages[stage]
    if kind not in kind_blocks():
        hint = hint_at_kind(kind) or did_you_mean(kind, kind_blocks())
        raise ConfigError(f"{document.where(('stages', stage, 'kind'))}: unknown kind {kind!r}.{hint}")
    return kind


def _parents(found: Found, document: Document) -> Iterator[tuple[KeyPath, Any]]:
    """The mappings of the workflow that the key stands in or could stand in, each item of a list apart; what stands in
    the place of one, perhaps nothing, where there is none."""
    starts: list[KeyPath] = [()]
    if found.owner:
        named = [name for name, kind in _kinds(document).items() if kind == found.owner]
        starts = [("stages", name) for name in named if found.stage in ("", name)]
    for start in starts:
        yield from _below(document.value, start + found.key.path[:-1], ())


def _below(value: Any, path: KeyPath, before: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _below(item, path, (*before, index))
    elif path and isinstance(value, dict):
        yield from _below(value.get(path[0]), path[1:], (*before, path[0]))
    else:
        yield before, value


def _fits(block: Block, parent: Any) -> bool:
    """True where a mapping has no key but the block's, and those with one value have that."""
    if not isinstance(parent, dict) or not set(parent) <= {key.name for key in block.keys}:
        return False
    return all(parent.get(name) == value for name, value in block.fixed.items())


def _unknown(word: str, reading: _Reading) -> str:
    every = reading.all_keys()
    known = [reading.before + ".".join(one.key.path) for one in every]
    known += [] if reading.before else [*kind_blocks(), *algorithms(), *(one.key.name for one in every)]
    hint = hint_at_kind(word) or did_you_mean(word, dict.fromkeys(known))
    return f"{word!r} is no kind of stage, no algorithm and no key.{hint} `gemma-keras explain` says what there is"
