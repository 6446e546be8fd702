"""YAML as data: YAML 1.2 scalars, a line and column for every value, and nothing that runs code or grows without bound.

Differences from `yaml.safe_load`, on purpose: `1e-5` is a float; only true and false are booleans (`no`, `on`, `yes`
are texts); no dates, sexagesimal or underscored numbers; U+0085, U+2028 and U+2029 end no line; tags, merge keys,
several documents, repeated keys and keys that are no text are errors; aliases are expanded up to a fixed number of
values.
"""

import copy
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml import events

from gemma_keras.files import need_file
from pipelines.host.errors import ConfigError
from pipelines.schema.roles import KeyPath

MAX_BYTES = 262_144
MAX_VALUES = 10_000
MAX_DEPTH = 32
MAX_DIGITS = 64

# Ends of lines to PyYAML, which follows YAML 1.1.
_LINE_ENDS = "\u0085\u2028\u2029"

Event = Any  # a parser event; which kind it is decides what it has, beyond what the stubs can say

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE, _FALSE = re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)")


@dataclasses.dataclass(frozen=True)
class Mark:
    """A place in a file; line and column count from 1."""

    line: int
    column: int


@dataclasses.dataclass
class Document:
    """A parsed file.

    Args:
        value: dicts, lists, texts, numbers, booleans, None.
        source: the file's name as shown in messages.
        value_marks: place of each value by key path. key_marks: place of each mapping key.
    """

    value: Any
    source: str
    value_marks: dict[KeyPath, Mark] = dataclasses.field(default_factory=dict)
    key_marks: dict[KeyPath, Mark] = dataclasses.field(default_factory=dict)

    def where(self, path: KeyPath, of_key: bool = False) -> str:
        """`file:line:column` of a value (or its key); of the key of the nearest parent where the path itself is not in
        the file."""
        while path and path not in self.value_marks:
            path, of_key = path[:-1], True
        mark = self.key_marks.get(path) if of_key else None
        mark = mark or self.value_marks.get(path, Mark(1, 1))
        return f"{self.source}:{mark.line}:{mark.column}"


def read_file(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigError: missing or unreadable file (`file: reason`), or anything `read_text` refuses.
    """
    try:
        need_file(path)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the workflow file ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path}:1:1: expected a workflow of at most {MAX_BYTES} bytes; put data into files and name their paths"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ConfigError(
            f"{path}:{line}:{column}: byte {data[error.start]:#04x} is no UTF-8; save the file as UTF-8"
        ) from error
    return read_text(text, str(path))


def read_text(text: str, source: str) -> Document:
    """Parse YAML text.

    Raises:
        ConfigError: `source:line:column: what is wrong`; the first problem only, since what follows it can not be
            trusted.
    """
    document = Document(None, source)
    stand_ins = _stand_ins(text)
    try:
        _Composer(text.translate(stand_ins), document, {after: before for before, after in stand_ins.items()}).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ConfigError(f"{source}:{place}: no valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise ConfigError(
            f"{source}:{line}:{column}: the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        ) from error
    return document


def _stand_ins(text: str) -> dict[int, int]:
    """For each of `_LINE_ENDS` a character that PyYAML takes for a letter, and that the text does not hold."""
    free = (code for code in range(0xE000, 0xF900) if chr(code) not in text)
    return dict(zip(map(ord, _LINE_ENDS), free, strict=False)) if set(_LINE_ENDS) & set(text) else {}


def plain_scalar(text: str) -> Any:
    """The value of an unquoted scalar under YAML 1.2's core schema.

    Raises:
        ValueError: a number with more digits than any setting has.
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    special = _SPECIAL.fullmatch(text)
    if special:
        return float(special[1] + special[2])
    based, number = _BASED.fullmatch(text), _FLOAT.fullmatch(text)
    if (based or number) and len(text) > MAX_DIGITS:
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    if _INTEGER.fullmatch(text):
        return int(text)
    if based:
        return int(text, 0)
    return float(text) if number else text


def dump(value: Any) -> str:
    """YAML text that this reader, and readers of YAML 1.1, read back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Quotes also the texts that only YAML 1.2 reads as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _is_plain_text(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_plain_text(text: str) -> bool:
    if set(_LINE_ENDS) & set(text):
        return False
    try:
        return isinstance(plain_scalar(text), str)
    except ValueError:
        return False


_Dumper.add_representer(str, _represent_text)


class _Composer:
    """Builds plain values from parser events; no constructors and so no tags' behaviour is involved."""

    def __init__(self, text: str, document: Document, letters: dict[int, int]):
        self.letters = letters  # in place of which `text` holds others
        self.stream: Iterator[Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.document = document
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        self.count = 0

    def compose(self) -> None:
        started = False
        for event in self.stream:
            if isinstance(event, events.DocumentStartEvent):
                if started:
                    self.fail(event, "a second document; expected one workflow a file")
                started = True
            elif isinstance(event, events.NodeEvent):
                self.document.value = self.value(event, ())

    def value(self, event: Event, path: KeyPath) -> Any:
        mark = event.start_mark
        self.document.value_marks[path] = Mark(mark.line + 1, mark.column + 1)
        if isinstance(event, events.AliasEvent):
            return self.alias(event)
        if event.tag is not None:
            self.fail(event, f"the tag {event.tag!r}: a workflow is plain data; remove the tag")
        if len(path) > MAX_DEPTH:
            self.fail(event, f"more than {MAX_DEPTH} levels of nesting")
        before = self.count
        self.grow(event, 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, events.ScalarEvent):
            value = self.scalar(event)
        elif isinstance(event, events.SequenceStartEvent):
            value = self.sequence(path)
        else:
            value = self.mapping(path)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.count - before)
        return value

    def alias(self, event: Event) -> Any:
        if event.anchor not in self.anchors:
            self.fail(event, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        found = self.anchors[event.anchor]
        if found is None:
            self.fail(event, f"the alias *{event.anchor} contains itself")
        self.grow(event, found[1])
        return copy.deepcopy(found[0])

    def scalar(self, event: Event) -> Any:
        text = event.value.translate(self.letters)
        if event.style is not None:
            return text
        try:
            return plain_scalar(text)
        except ValueError as error:
            self.fail(event, f"{error}; quote it if it is a text")

    def sequence(self, path: KeyPath) -> list[Any]:
        values: list[Any] = []
        for event in self.stream:
            if isinstance(event, events.SequenceEndEvent):
                break
            values.append(self.value(event, (*path, len(values))))
        return values

    def mapping(self, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in self.stream:
            if isinstance(event, events.MappingEndEvent):
                break
            key = self.key(event, values)
            mark = event.start_mark
            self.document.key_marks[*path, key] = Mark(mark.line + 1, mark.column + 1)
            values[key] = self.value(next(self.stream), (*path, key))
        return values

    def key(self, event: Event, values: dict[str, Any]) -> str:
        if not isinstance(event, events.ScalarEvent) or event.tag is not None:
            self.fail(event, "a key that is no plain text")
        key = self.scalar(event)
        if not isinstance(key, str):
            self.fail(
                event,
                f"the key {event.value!r} is read as {type(key).__name__}; expected a text, quote it if it is meant as "
                "one",
            )
        if event.style is None and key == "<<":
            self.fail(event, "the merge key `<<` is not part of YAML 1.2; write the keys out, or alias whole values")
        if key in values:
            self.fail(event, f"the key {key!r} occurs twice in this mapping; remove one of them")
        return key

    def grow(self, event: Event, size: int) -> None:
        self.count += size
        if self.count > MAX_VALUES:
            self.fail(event, f"more than {MAX_VALUES} values, aliases expanded")

    def fail(self, event: Event, message: str) -> NoReturn:
        mark = event.start_mark
        raise ConfigError(f"{self.document.source}:{mark.line + 1}:{mark.column + 1}: {message}")
