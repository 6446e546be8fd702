"""Lists of turns as they come in data sets, to messages with a role and a text.

Three spellings of a turn are read: `{role, content}`, the same with its content as parts
(`[{"type": "text", "text": ...}]`), and ShareGPT's `{from, value}`. What has no place in Gemma's turns, which are text
of a user and of the model, is refused: tool calls and their results, images and other parts. Every fault is a `BadRow`
with the reason and what to do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.data.hh_rlhf import Message
from pipelines.data.rejects import BadRow

MODEL_ROLES = ("assistant", "model")
ROLES = ("system", "user", *MODEL_ROLES)
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
"""Speakers of ShareGPT's `from` that are called otherwise here; `system` and our roles keep their names."""

_TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
_TOOL_KEYS = ("tool_calls", "function_call")
_NOTHING: tuple[Any, ...] = (None, "", "[]", [], {})
_NO_TOOLS = (
    "Tools are not supported: Gemma's turns are text of a user and of the model. Write calls and results into the text "
    "of the turns, or set such rows aside: `on_bad_row: lenient`."
)


def read_turns(value: Any, where: str) -> list[Message]:
    """Turns in any of the three spellings, in no certain order yet; see `check_roles`.

    Args:
        value: what the row holds. where: of messages, such as "column 'messages'".

    Raises:
        BadRow: no list of turns, an unknown role, a tool's turn, content that is no text, or an empty one.
    """
    if not isinstance(value, list):
        raise BadRow(f"{where}: expected a list of {{role, content}}, got {type(value).__name__}.")
    return [_message(turn, f"{where}, turn {number}") for number, turn in enumerate(value, 1)]


def check_roles(messages: list[Message], where: str, ends_with_model: bool, first: str = "user") -> list[Message]:
    """The messages, whose roles are in turn, a system message in front of them where a user begins.

    Args:
        ends_with_model: who must have the last word. first: "user" or "assistant".

    Raises:
        BadRow: they are not.
    """
    roles = ["assistant" if message["role"] in MODEL_ROLES else message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] and first == "user" else roles
    order = ("user", "assistant") if first == "user" else ("assistant", "user")
    expected = [order[i % 2] for i in range(len(turns))]
    if not turns or turns != expected:
        raise BadRow(f"{where}: roles out of order: expected {first} first and then in turn, got {roles}.")
    if (turns[-1] == "assistant") != ends_with_model:
        raise BadRow(
            f"{where}: roles out of order: expected the last turn to be {'assistant' if ends_with_model else 'user'}, "
            f"got {roles}."
        )
    return messages


def check_text(value: Any, where: str) -> str:
    """A text that says something.

    Raises:
        BadRow: another type, or nothing but blanks.
    """
    if not isinstance(value, str):
        raise BadRow(f"{where}: expected text, got {type(value).__name__}.")
    if not value.strip():
        raise BadRow(f"{where}: the text is empty.")
    return value


def refuse_beside(values: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Stops at columns beside the turns that would change what the model is shown, and that are not read.

    Raises:
        BadRow: one of them holds something.
    """
    for column in columns:
        if values.get(column) not in _NOTHING:
            if column == "tools":
                raise BadRow(f"column 'tools' defines tools. {_NO_TOOLS}")
            raise BadRow(
                f"column {column!r} is not read and would be left out unseen. Write what it says into the turns of a "
                "column `messages`, or remove it."
            )


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise BadRow(f"{where}: expected {{role, content}}, got {str(turn)[:60]!r}.")
    is_sharegpt = "role" not in turn and {"from", "value"} <= turn.keys()
    role, content = ("from", "value") if is_sharegpt else ("role", "content")
    speaker = turn.get(role)
    if any(turn.get(key) for key in _TOOL_KEYS) or speaker in _TOOL_ROLES:
        raise BadRow(f"{where}: a tool is called, or answers. {_NO_TOOLS}")
    if not {role, content} <= turn.keys():
        raise BadRow(f"{where}: expected {{role, content}}, got {str(turn)[:60]!r}.")
    if is_sharegpt and isinstance(speaker, str):
        speaker = SHAREGPT_ROLES.get(speaker, speaker)
    if speaker not in ROLES:
        known = (*SHAREGPT_ROLES, *ROLES) if is_sharegpt else ROLES
        raise BadRow(f"{where}: unknown role {turn[role]!r}, expected one of {', '.join(known)}.")
    return {"role": speaker, "content": check_text(_content(turn[content], where), where)}


def _content(value: Any, where: str) -> Any:
    """The text of a content, its parts put together; whatever else it is goes back as it came."""
    if not isinstance(value, list):
        return value
    texts = []
    for number, part in enumerate(value, 1):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise BadRow(
                f"{where}: part {number} of the content is {str(kind)!r}; only text is supported: "
                '{"type": "text", "text": "..."}. Take other parts out, or set such rows aside: `on_bad_row: lenient`.'
            )
        texts.append(part["text"])
    return "".join(texts)
