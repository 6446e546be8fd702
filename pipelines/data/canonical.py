"""Examples back to rows under the names that every stage knows, and the texts in such a row, each with its part.

A row that has been read once, from whatever columns, is written so that nobody has to name its columns again.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pipelines.data.columns import Example, Prompt
from pipelines.data.hh_rlhf import Message
from pipelines.data.turns import MODEL_ROLES

Part = Literal["text", "prompt", "completion", "rejected"]
Place = tuple[str | int, ...]

IDS = ("prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")
_TEXT_COLUMNS = (
    "text", "messages", "conversations", "prompt", "completion", "chosen", "rejected", "instruction", "input", "output",
    "item", *IDS,
)  # fmt: skip
"""Columns that a later reading might take a text from: only what was read is written again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One text of a row.

    Args:
        part: "text" and "completion" (answers, chosen answers, the model's turns) is what a model learns to say,
            "prompt" what it is asked, "rejected" what it learns not to say.
        place: keys that lead to it in the row.
    """

    part: Part
    text: str
    place: Place = ()


def canonical_row(example: Example, values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The row of an example: `text`; `messages`; `prompt` and `completion`; `prompt` and `answer`; `prompt`, `chosen`
    and `rejected`; and behind them the other columns as they were.

    Args:
        values: the row that it was read from. names: the columns that were named, by what they hold.
    """
    row: dict[str, Any] = {}
    for name in ("text", "messages", "prompt", "completion", "chosen", "rejected", *IDS):
        if getattr(example, name, None) is not None:
            row[name] = getattr(example, name)
    answer = example.answer if isinstance(example, Prompt) else values.get(names.get("answer", "answer"))
    if answer is not None:
        row["answer"] = answer
    content = getattr(example, "content", None)
    if content is not None:
        row["content_hash"] = content
    known = {*_TEXT_COLUMNS, *names.values(), "answer", "content_hash"}
    return {**row, **{name: value for name, value in values.items() if name not in known}}


def pieces_of(row: Mapping[str, Any]) -> list[Piece]:
    """The texts of a canonical row, in the order in which they are read."""
    found: list[Piece] = []
    if "text" in row:
        found.append(Piece("text", row["text"], ("text",)))
    for name in ("messages", "prompt", "completion", "chosen", "rejected"):
        if name in row:
            found += _of_value(name, row[name])
    return found


def with_texts(row: Mapping[str, Any], changes: Mapping[Place, str]) -> dict[str, Any]:
    """A copy of a row with other texts at some places; token ids, which would be read in their stead, are left out."""
    if not changes:
        return dict(row)
    new = copy.deepcopy({name: value for name, value in row.items() if name not in IDS})
    for place, text in changes.items():
        *parents, last = place
        value: Any = new
        for key in parents:
            value = value[key]
        value[last] = text
    return new


def _of_value(name: str, value: str | list[Message]) -> Iterator[Piece]:
    part: Part = "prompt" if name == "prompt" else "rejected" if name == "rejected" else "completion"
    if isinstance(value, str):
        yield Piece(part, value, (name,))
        return
    for number, turn in enumerate(value):
        # What a model said earlier in a prompt is a part of what it is asked.
        yield Piece(part if turn["role"] in MODEL_ROLES else "prompt", turn["content"], (name, number, "content"))
