"""Reads HH-RLHF's raw format: whole dialogues as text with `\\n\\nHuman:` and `\\n\\nAssistant:` before each turn.

Format: Bai et al. 2022, arXiv:2204.05862, and the repository anthropics/hh-rlhf. The prompt of a pair is implicit: the
turns that both dialogues share. Two turns in a row by the same speaker, which the raw data has here and there, are
joined.
"""

import re
from typing import Any

from pipelines.data.rejects import BadRow

_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
Message = dict[str, str]


def is_hh_dialogue(text: Any) -> bool:
    """True where a text starts like an HH-RLHF dialogue and has an answer."""
    return isinstance(text, str) and text.lstrip("\n").startswith("Human:") and "\n\nAssistant:" in text


def parse_dialogue(text: Any) -> list[Message]:
    """The turns of a raw dialogue.

    Args:
        text: starts with `Human:`; spaces and newlines around each turn are no part of it.

    Returns:
        messages {"role": "user" | "assistant", "content"}, roles in turn.

    Raises:
        BadRow: no such dialogue, or a turn that says nothing (an empty last turn included).
    """
    if not isinstance(text, str):
        raise BadRow(f"expected an HH-RLHF dialogue as text, got {type(text).__name__}.")
    parts = _SPEAKER.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if parts[0].strip() or len(parts) < 3 or parts[1] != "Human":
        raise BadRow(f"expected an HH-RLHF dialogue that starts with '\\n\\nHuman:', got {text[:40]!r}.")
    messages: list[Message] = []
    for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
        role, content = _ROLES[speaker], content.strip()
        if messages and messages[-1]["role"] == role:
            content = "\n\n".join(part for part in (messages.pop()["content"], content) if part)
        messages.append({"role": role, "content": content})
    empty = [number for number, message in enumerate(messages, 1) if not message["content"]]
    if empty:
        raise BadRow(f"turn {empty[0]} of the dialogue is empty.")
    return messages


def shared_prompt(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Splits two conversations into the turns they share and what follows in each.

    Returns:
        prompt: ends with a user's turn. chosen, rejected: the rest, starting with an assistant's turn.

    Raises:
        BadRow: the same conversations, no shared user's turn, or one has no answer after it.
    """
    if chosen == rejected:
        raise BadRow("chosen equals rejected: a pair needs two different responses.")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1]["role"] != "user":
        shared -= 1
    if not shared:
        raise BadRow("chosen and rejected share no prompt: expected the same turns up to the response.")
    if len(chosen) == shared or len(rejected) == shared:
        raise BadRow("one of chosen and rejected has no response after the shared prompt.")
    return chosen[:shared], chosen[shared:], rejected[shared:]
