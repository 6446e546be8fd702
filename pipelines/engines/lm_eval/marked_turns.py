"""Conversations as the text that lm-eval wants of them, and that text as ids, in which a turn's mark is a control id
and nothing that stood in a benchmark is.

lm-eval has a conversation rendered to a string, adds to it, and has it encoded later. Written out, marks would be
plain text here, and a text that holds them could open a turn if they were not. So a mark is one of Unicode's
noncharacters, which no text may hold: where one does, it is replaced before.
"""

import re
from collections.abc import Mapping, Sequence

from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.host.errors import ConfigError

START, END = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"([{START}{END}])")
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_ROLES = {"user": "user", "assistant": "model", "model": "model"}


def without_marks(text: str) -> str:
    """A benchmark's text, so that none of its characters is taken for a mark."""
    return _MARK.sub(_REPLACED, text)


def marked_turns(messages: Sequence[Mapping[str, str]], opens_answer: bool = True) -> str:
    """A conversation as marked text: Gemma's turns, contents without outer white space. What a system says stands
    before the first user's words, as in Gemma 3's template; no family has turns for it.

    Args:
        messages: `{"role", "content"}`, of system, user and assistant.
        opens_answer: end with the beginning of an answer; False leaves the last message, an answer's beginning, open
            as it is.

    Raises:
        ConfigError: another role, or nothing but a system's words.
    """
    system = "".join(f"{one['content'].strip()}\n\n" for one in messages if one["role"] == "system")
    turns = [one for one in messages if one["role"] != "system"]
    unknown = {one["role"] for one in turns} - set(_ROLES)
    if unknown or not turns:
        raise ConfigError(f"turns of {', '.join(_ROLES)} are expected. Received: {', '.join(unknown) or 'none'}")
    parts = []
    for number, one in enumerate(turns):
        content = (system if number == 0 else "") + one["content"].strip()
        is_open = not opens_answer and number == len(turns) - 1
        content = without_marks(one["content"].lstrip() if is_open else content)
        parts.append(f"{START}{_ROLES[one['role']]}\n{content}" + ("" if is_open else f"{END}\n"))
    return "".join(parts) + (f"{START}model\n" if opens_answer else "")


def encode_marked(tokenizer: GemmaTokenizer, text: str) -> list[int]:
    """Ids of a marked text, without bos.

    Raises:
        ConfigError: a tokenizer without turn marks.
    """
    marks = {START: tokenizer.start_of_turn_id, END: tokenizer.end_of_turn_id}
    ids: list[int] = []
    for part in _MARK.split(text):
        if part not in marks:
            ids += tokenizer.encode(part) if part else []
            continue
        mark = marks[part]
        if mark is None:
            raise ConfigError("the tokenizer has no <start_of_turn> and <end_of_turn>; expected `chat_template: false`")
        ids.append(mark)
    return ids
