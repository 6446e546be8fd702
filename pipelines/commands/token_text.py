"""Token ids as text for a terminal: turns in colour, control pieces written out, loss-bearing tokens in marks."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TextIO

from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.host.visible_text import visible

OPEN, CLOSE = "[[", "]]"
"""What stands around loss-bearing tokens."""

_COLORS = {"user": "36", "model": "32", "control": "2", "mark": "1;33"}
_LONGEST_ROLE = 8  # pieces: `model` and its newline, in a tokenizer that knows little more than letters


@dataclasses.dataclass(frozen=True)
class _Run:
    """Neighbouring ids of one kind: "user", "model", "" outside turns, or "control"."""

    kind: str
    is_target: bool
    ids: list[int]


def has_colors(stream: TextIO) -> bool:
    """True for a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def render(tokenizer: GemmaTokenizer, token_ids: Sequence[int], is_target: Sequence[bool], colors: bool) -> str:
    """The text of ids.

    Args:
        token_ids: ints (t,). is_target: bools (t,), True where a token is to stand in marks.
        colors: False gives plain text.

    Returns:
        Text, in which characters that a terminal would obey are spelled, such as `\\\\x1b`.
    """
    parts, is_open = [], False
    for run in _runs(tokenizer, token_ids, is_target):
        if run.is_target != is_open:
            parts.append(_paint(CLOSE if is_open else OPEN, "mark", colors))
            is_open = run.is_target
        parts.append(_paint(visible(tokenizer.decode(run.ids, keep_control=True)), run.kind, colors))
    return "".join(parts) + (_paint(CLOSE, "mark", colors) if is_open else "")


def _runs(tokenizer: GemmaTokenizer, token_ids: Sequence[int], is_target: Sequence[bool]) -> Iterator[_Run]:
    keys, role = [], ""
    for place, token_id in enumerate(token_ids):
        if token_id == tokenizer.start_of_turn_id:
            following = itertools.takewhile(
                lambda one: one not in tokenizer.control_ids, token_ids[place + 1 : place + 1 + _LONGEST_ROLE]
            )
            role = "model" if tokenizer.decode(following).startswith("model\n") else "user"
        keys.append(("control" if token_id in tokenizer.control_ids else role, is_target[place]))
        role = "" if token_id == tokenizer.end_of_turn_id else role
    for (kind, marked), group in itertools.groupby(range(len(keys)), keys.__getitem__):
        yield _Run(kind, marked, [token_ids[place] for place in group])


def _paint(text: str, kind: str, colors: bool) -> str:
    color = _COLORS.get(kind)
    return f"\x1b[{color}m{text}\x1b[0m" if colors and color else text
