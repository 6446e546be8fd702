"""Texts in which somebody wrote control pieces by hand, as prompts for other libraries often are.

Here a control piece in a text is text, so that what a user types cannot open a turn. That is safe, and silently another
prompt than was meant: whoever takes text says so, and `from_marked_text` turns a trusted one into what was meant.
"""

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from gemma_keras.errors import InputError
from gemma_keras.text.sentencepiece_files import END_OF_TURN, INFILLING_MARKS, START_OF_TURN

_PACKAGE = str(Path(__file__).parent.parent)
_PREFIX, _SUFFIX, _MIDDLE = INFILLING_MARKS[:3]
_MARK = re.compile("|".join(map(re.escape, (START_OF_TURN, END_OF_TURN, _PREFIX, _SUFFIX, _MIDDLE))))
_TURN = re.compile(rf"{re.escape(START_OF_TURN)}(\w+)(?:\n|\Z)(.*?)(?:{re.escape(END_OF_TURN)}|\Z)", re.DOTALL)
_INFILLING = re.compile(
    rf"{re.escape(_PREFIX)}(.*?){re.escape(_SUFFIX)}(.*?){re.escape(_MIDDLE)}\s*\Z", re.DOTALL
)  # fmt: skip


def mark_in(text: str) -> str | None:
    """The first turn or infilling mark that is written out in a text, or None."""
    found = _MARK.search(text)
    return None if found is None else found[0]


def warn_of_marks(texts: Iterable[str]) -> None:
    """One warning where a mark is written out in one of the texts, at the line outside of this library that gave
    them."""
    mark = next(filter(None, map(mark_in, texts)), None)
    if mark is not None:
        warnings.warn(
            f"{mark} is written out in the text, where it is plain text and no control piece: the model does not see a "
            f"turn or a gap there. {remedy(mark)}",
            stacklevel=_levels_to_user(),
        )


def _levels_to_user() -> int:
    """`stacklevel` of the first caller outside of this package, for the function that asks."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def texts_in(value: Any) -> Iterator[str]:
    """Every string in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from texts_in(each)


def remedy(mark: str) -> str:
    """What to pass instead of a text with this mark."""
    if mark in INFILLING_MARKS:
        return "Pass {'prefix': ..., 'suffix': ...}, or gemma_keras.from_marked_text(text) of a text that you trust"
    return (
        "Pass a conversation, [{'role': 'user', 'content': ...}], or gemma_keras.from_marked_text(text) of a text that "
        "you trust"
    )


def from_marked_text(text: str) -> list[dict[str, str]] | dict[str, str]:
    """What a **trusted** text with control pieces written out means, in the form that `generate` and `fit` take.

    Never give it what users typed: a mark in their text would open a turn of its own.

    Args:
        text: turns, `<start_of_turn>user\\n...<end_of_turn>\\n<start_of_turn>model\\n`, with or without `<bos>` before
            them; an open, empty model turn at the end, which asks for an answer, is left away. Or a CodeGemma prompt,
            `<|fim_prefix|>...<|fim_suffix|>...<|fim_middle|>`.

    Returns:
        Messages `{"role": "user" or "model", "content"}`; or `{"prefix", "suffix"}`.

    Raises:
        InputError: a text without marks, or with text outside of the turns; a last turn that is begun and not ended.
    """
    text = text.removeprefix("<bos>")
    gap = _INFILLING.fullmatch(text.lstrip())
    if gap is not None:
        return {"prefix": gap[1], "suffix": gap[2]}
    messages, end = [], 0
    for turn in _TURN.finditer(text):
        if text[end : turn.start()].strip():
            break
        is_open = not turn[0].endswith(END_OF_TURN) or START_OF_TURN in turn[2]
        end = turn.end()
        if is_open and turn[1] == "model" and not turn[2].strip():
            break
        if is_open:
            raise InputError(
                f"A turn is not ended. Expected {END_OF_TURN}, or `{START_OF_TURN}model` and nothing after it. "
                f"Received: ...{text[-60:]!r}"
            )
        messages.append({"role": turn[1], "content": turn[2]})
    rest = text[end:].strip().removesuffix("<eos>")
    if not messages or rest:
        raise InputError(
            f"Expected turns, {START_OF_TURN}user, a newline, a text and {END_OF_TURN}, and nothing between them. "
            f"Received: {(rest or text)[:80]!r}"
        )
    return messages
