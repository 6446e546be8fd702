"""Rows to typed examples: which columns hold what, in plain and conversational form.

The names are TRL's conventions: `text`, `messages`, `prompt` and `completion`, `prompt`, `chosen` and `rejected`, and
`answer`. A data specification may name other columns; where it names none, ShareGPT's `conversations` and Alpaca's
`instruction`, `input` and `output` are known too. Every fault is a `BadRow` with the reason. `docs/data.md` shows a
row of each shape.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from pipelines.data.hh_rlhf import Message, is_hh_dialogue, parse_dialogue, shared_prompt
from pipelines.data.jsonl import Row
from pipelines.data.rejects import BadRow
from pipelines.data.turns import MODEL_ROLES, check_roles, check_text, read_turns, refuse_beside
from pipelines.host.spelling import did_you_mean
from pipelines.tasks.items import TaskItem

_CONVERSATIONS = ("messages", "conversations")


@dataclasses.dataclass(frozen=True)
class Text:
    """Plain text to continue."""

    text: str
    origin: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns that end with the model's; the loss is on all of the model's turns."""

    messages: list[Message]
    origin: str


@dataclasses.dataclass(frozen=True)
class PromptCompletion:
    """A prompt, as text or as turns, and the response to learn.

    Args:
        prompt_ids, completion_ids: the token ids as sampled, where known: they are used instead of the texts.
        content: hash of what the prompt says, where a task decides that.
    """

    prompt: str | list[Message]
    completion: str
    origin: str
    prompt_ids: list[int] | None = None
    completion_ids: list[int] | None = None
    content: str | None = None


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt to answer.

    Args:
        answer: the known answer. item: the built-in task's instruction, for its gold reward.
        columns: the whole row, for rewards of a user's own.
    """

    prompt: str | list[Message]
    answer: str | None
    origin: str
    item: TaskItem | None = None
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def content(self) -> str | None:
        """Hash of what the prompt says, where a task decides that, also of one that went through a file."""
        return self.columns.get("content_hash") if self.item is None else self.item.content


@dataclasses.dataclass(frozen=True)
class Preference:
    """Two responses to one prompt.

    Args:
        prompt: text or turns.
        chosen, rejected: the preferred response and the other: text, or turns where more than one follows the prompt.
        margin: how much better chosen is, for the loss; 0 where unknown.
        probability: the labelling model's p(chosen wins), where known.
        prompt_ids, chosen_ids, rejected_ids: the token ids as sampled, where known: they are used instead of the texts.
        content: hash of what the prompt says, where a task decides that.
    """

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    origin: str
    margin: float = 0.0
    probability: float | None = None
    prompt_ids: list[int] | None = None
    chosen_ids: list[int] | None = None
    rejected_ids: list[int] | None = None
    content: str | None = None

    def conversation(self, response: str) -> list[Message]:
        """The turns of the prompt and of `response`, "chosen" or "rejected"."""
        value = self.chosen if response == "chosen" else self.rejected
        return as_messages(self.prompt) + (
            value if isinstance(value, list) else [{"role": "assistant", "content": value}]
        )


Example = Text | Conversation | PromptCompletion | Prompt | Preference
"""What a row becomes."""


def as_messages(prompt: str | list[Message]) -> list[Message]:
    """A prompt as turns."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def read_text(row: Row, names: dict[str, str]) -> Text:
    """The `text` column."""
    return Text(_text(row, _column(row, names, "text")), row.origin)


def read_instruction(row: Row, names: dict[str, str], hh_rlhf: bool = False) -> Text | Conversation | PromptCompletion:
    """What a response is learned from: a conversation, `prompt` and `completion`, Alpaca's columns, `text`, or
    HH-RLHF's chosen dialogue."""
    if hh_rlhf:
        messages = parse_dialogue(_value(row, names.get("completion", names.get("chosen", "chosen"))))
        return Conversation(check_roles(messages, "the dialogue", ends_with_model=True), row.origin)
    conversation = _conversation_column(row, names)
    if conversation is not None:
        return Conversation(_messages(row, conversation, ends_with_model=True), row.origin)
    if _is_alpaca(row, names) and "output" in row.values and "completion" not in row.values:
        return PromptCompletion(_alpaca_prompt(row), _text(row, "output"), row.origin)
    if "text" in names or ("text" in row.values and not {"prompt", "completion"} & {*names, *row.values}):
        return read_text(row, names)
    prompt = _prompt(row, _column(row, names, "prompt"))
    column = _column(row, names, "completion")
    # Of collected preferences the chosen answers can be named: their ids stand in `chosen_ids`.
    prompt_ids, completion_ids = _ids_together(row, "prompt_ids", f"{column}_ids").values()
    # A model may sample no text or blanks alone; its ids are what counts.
    sampled = completion_ids is not None and isinstance(row.values[column], str)
    completion = row.values[column] if sampled else _response(row, column)
    if isinstance(completion, list):
        prompt, completion = [*as_messages(prompt), *completion[:-1]], completion[-1]["content"]
    item = _item(row)
    content = row.values.get("content_hash") if item is None else item.content
    return PromptCompletion(
        prompt, completion, row.origin, content=content, prompt_ids=prompt_ids, completion_ids=completion_ids
    )


def read_prompt(row: Row, names: dict[str, str], hh_rlhf: bool = False) -> Prompt:
    """A prompt and, where there is one, its known answer; of a conversation what stands before its last response."""
    if hh_rlhf:
        messages = parse_dialogue(_value(row, names.get("prompt", names.get("chosen", "chosen"))))
        while messages and messages[-1]["role"] != "user":
            messages = messages[:-1]
        asked = check_roles(messages, "the dialogue", ends_with_model=False)
        return Prompt(asked, None, row.origin, columns=row.values)
    answer = None
    if "answer" in names or row.values.get("answer") is not None:
        answer = _answer(row, _column(row, names, "answer"))
    item = _item(row)
    columns = row.values if item is None else {name: value for name, value in row.values.items() if name != "item"}
    return Prompt(_asked(row, names), answer, row.origin, item, columns)


def read_preference(row: Row, names: dict[str, str], hh_rlhf: bool = False) -> Preference:
    """A pair with its explicit prompt, or with the shared beginning as its prompt."""
    columns = {name: _column(row, names, name) for name in ("chosen", "rejected")}
    values = {name: _value(row, column) for name, column in columns.items()}
    explicit = not hh_rlhf and ("prompt" in names or "prompt" in row.values or _is_alpaca(row, names))
    chosen: str | list[Message]
    rejected: str | list[Message]
    if explicit:
        prompt = _alpaca_prompt(row) if _is_alpaca(row, names) else _prompt(row, _column(row, names, "prompt"))
        is_sampled = (
            row.values.get("chosen_ids") is not None
        )  # a model may sample no text or blanks alone; its ids are what counts
        chosen, rejected = (
            values[name] if is_sampled and isinstance(values[name], str) else _response(row, columns[name])
            for name in ("chosen", "rejected")
        )
    elif hh_rlhf or all(is_hh_dialogue(value) for value in values.values()):
        prompt, chosen, rejected = shared_prompt(*(parse_dialogue(values[name]) for name in ("chosen", "rejected")))
    elif all(isinstance(value, list) for value in values.values()):
        turns = [_messages(row, columns[name], ends_with_model=True) for name in ("chosen", "rejected")]
        prompt, chosen, rejected = shared_prompt(*turns)
    else:
        prompt, chosen, rejected = _shared_beginning(_text(row, columns["chosen"]), _text(row, columns["rejected"]))
    chosen, rejected = (_plain_if_single(value) for value in (chosen, rejected))
    if chosen == rejected and not _different_ids(row):
        raise BadRow("chosen equals rejected: a pair needs two different responses.")
    for name in ("score_chosen", "score_rejected"):
        _number(row, name, None)
    ids = _ids_together(row, "prompt_ids", "chosen_ids", "rejected_ids")
    margin, probability = _number(row, "margin", 0.0), _number(row, "probability", None)
    if probability is not None and not 0.0 <= probability <= 1.0:
        raise BadRow(f"column 'probability': expected a number from 0 to 1, got {probability}.")
    content = row.values.get("content_hash")
    return Preference(
        prompt, chosen, rejected, row.origin, margin=margin or 0.0, probability=probability, content=content, **ids
    )


def unread_input(row: Row, names: dict[str, str]) -> bool:
    """True where the named columns leave out an Alpaca row's `input`, without which its instruction says too little."""
    is_left_out = names.get("prompt") == "instruction" and "input" not in names.values()
    return is_left_out and bool(str(row.values.get("input") or "").strip())


def _conversation_column(row: Row, names: dict[str, str]) -> str | None:
    """The column with whole conversations; None where the row is meant to be read otherwise."""
    if "completion" in names or ("prompt" in names and "messages" not in names):
        return None
    if "messages" in names:
        return _column(row, names, "messages")
    return next((column for column in _CONVERSATIONS if column in row.values), None)


def _is_alpaca(row: Row, names: dict[str, str]) -> bool:
    named = {"prompt", "completion", "messages", "text"} & names.keys()
    return not named and "instruction" in row.values and "prompt" not in row.values


def _alpaca_prompt(row: Row) -> str:
    """Alpaca's instruction, its input below it."""
    refuse_beside(row.values, ("system", "history"))
    instruction, more = _text(row, "instruction"), row.values.get("input")
    if more is None or (isinstance(more, str) and not more.strip()):
        return instruction
    return f"{instruction}\n\n{_text(row, 'input')}"


def _asked(row: Row, names: dict[str, str]) -> str | list[Message]:
    """The prompt, also where a row has it as part of a conversation."""
    if "prompt" not in names and ("prompt" not in row.values or "messages" in names):
        conversation = _conversation_column(row, names)
        if conversation is not None:
            return _messages(row, conversation, ends_with_model=False, cut_response=True)
        if _is_alpaca(row, names):
            return _alpaca_prompt(row)
    return _prompt(row, _column(row, names, "prompt"))


def _column(row: Row, names: dict[str, str], name: str) -> str:
    column = names.get(name, name)
    if column not in row.values:
        hint = did_you_mean(column, row.values)
        remedy = "" if name in names else f" Name yours in the data specification, e.g. `{name}: COLUMN`."
        raise BadRow(
            f"column {column!r} is missing; the row has {', '.join(map(repr, row.values)) or 'none'}.{hint}{remedy}"
        )
    return column


def _value(row: Row, column: str) -> Any:
    if column not in row.values:
        return row.values[_column(row, {}, column)]
    return row.values[column]


def _text(row: Row, column: str) -> str:
    return check_text(row.values[column], f"column {column!r}")


def _prompt(row: Row, column: str) -> str | list[Message]:
    if isinstance(row.values[column], list):
        return _messages(row, column, ends_with_model=False)
    return _text(row, column)


def _response(row: Row, column: str) -> str | list[Message]:
    value = row.values[column]
    if not isinstance(value, list):
        return _text(row, column)
    messages = read_turns(value, f"column {column!r}")
    if not messages or messages[0]["role"] not in MODEL_ROLES:
        raise BadRow(
            f"column {column!r}: roles out of order: a response starts with 'assistant', got "
            f"{[m['role'] for m in messages]}."
        )
    return _plain_if_single(check_roles(messages, f"column {column!r}", ends_with_model=True, first="assistant"))


def _plain_if_single(response: str | list[Message]) -> str | list[Message]:
    return response[0]["content"] if isinstance(response, list) and len(response) == 1 else response


def _messages(row: Row, column: str, ends_with_model: bool, cut_response: bool = False) -> list[Message]:
    messages = read_turns(row.values[column], f"column {column!r}")
    refuse_beside(row.values, ("tools", "system") if column == "conversations" else ("tools",))
    if cut_response and messages and messages[-1]["role"] in MODEL_ROLES:
        messages = messages[:-1]
    return check_roles(messages, f"column {column!r}", ends_with_model)


def _shared_beginning(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Plain texts with an implicit prompt: cut at the last space before they differ."""
    if chosen == rejected:
        raise BadRow("chosen equals rejected: a pair needs two different responses.")
    length = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    while length and not chosen[length - 1].isspace():
        length -= 1
    prompt, parts = chosen[:length].strip(), (chosen[length:].strip(), rejected[length:].strip())
    if not prompt or not all(parts):
        raise BadRow("chosen and rejected share no prompt, or one has no response after it. Add a column `prompt`.")
    return prompt, *parts


def _answer(row: Row, column: str) -> str:
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow(f"column {column!r}: expected text or a number, got {type(value).__name__}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"column {column!r}: expected a finite number, got {value}.")
    return check_text(str(value), f"column {column!r}")


def _number(row: Row, column: str, default: float | None) -> float | None:
    value = row.values.get(column)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(f"column {column!r}: expected a number, got {type(value).__name__}.")
    if not math.isfinite(value):
        raise BadRow(f"column {column!r}: expected a finite number, got {value}.")
    return float(value)


def _ids_together(row: Row, *columns: str) -> dict[str, list[int] | None]:
    ids = {name: _ids(row, name) for name in columns}
    if 0 < sum(value is not None for value in ids.values()) < len(columns):
        raise BadRow(f"{', '.join(columns[:-1])} and {columns[-1]} go together: expected all of them or none.")
    return ids


def _ids(row: Row, column: str) -> list[int] | None:
    value = row.values.get(column)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or not value
        or any(isinstance(x, bool) or not isinstance(x, int) or x < 0 for x in value)
    ):
        raise BadRow(f"column {column!r}: expected a list of token ids (integers >= 0), got {str(value)[:60]!r}.")
    return value


def _different_ids(row: Row) -> bool:
    chosen, rejected = row.values.get("chosen_ids"), row.values.get("rejected_ids")
    return chosen is not None and rejected is not None and chosen != rejected


def _item(row: Row) -> TaskItem | None:
    item = row.values.get("item")
    return item if isinstance(item, TaskItem) else None
