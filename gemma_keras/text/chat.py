"""Turns to token ids and loss mask, in the format of the Gemma paper.

    <bos><start_of_turn>user
    Knock knock.<end_of_turn>
    <start_of_turn>model
    Who's there?<end_of_turn>

Control ids are inserted as ids; what users wrote is encoded as plain text and never becomes one. Leading and trailing
whitespace of a turn is cut off, as in Gemma's chat templates. The loss covers a response and its end-of-turn id, not
the newline that follows it.

Source: arXiv:2403.08295, section 4 and table 3.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from gemma_keras.errors import InputError
from gemma_keras.text.tokenizer import GemmaTokenizer

_MODEL_ROLES = ("model", "assistant")
_FAMILIES_WITH_SYSTEM = ("gemma3",)

Message = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class EncodedExample:
    """Token ids of one training example.

    Args:
        token_ids: ints (t,).
        is_target: bools (t,), True where the token bears loss.
    """

    token_ids: list[int]
    is_target: list[bool]


def encode_text(tokenizer: GemmaTokenizer, text: str) -> EncodedExample:
    """bos, text, eos, without a template; everything but bos is a target."""
    token_ids = [tokenizer.bos_token_id, *tokenizer.encode(text), tokenizer.eos_token_id]
    return EncodedExample(token_ids, [False] + [True] * (len(token_ids) - 1))


def encode_prompt(tokenizer: GemmaTokenizer, prompt: str | Sequence[Message]) -> list[int]:
    """Ids that a response follows: bos, the turns, `<start_of_turn>model` and a newline.

    Args:
        tokenizer: with turn marks.
        prompt: the text of one user turn, or messages `{"role", "content"}` that end with a user turn.

    Raises:
        InputError: empty or misordered messages, a system message where the family has none.
    """
    turns = _check(tokenizer, [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)
    if turns[-1][0] != "user":
        raise InputError(
            f"A prompt must end with a user turn. Received: {len(turns)} turns, the last one from the model. Leave it "
            "out."
        )
    return _encode_turns(tokenizer, turns).token_ids + _open_turn(tokenizer, "model")


def encode_response(tokenizer: GemmaTokenizer, text: str) -> list[int]:
    """Ids of a response: its text, end of turn."""
    _, end = _turn_marks(tokenizer)
    return [*tokenizer.encode(text.strip()), end]


def encode_pair(tokenizer: GemmaTokenizer, prompt: str | Sequence[Message], response: str) -> EncodedExample:
    """Prompt and response, ending with end of turn; the targets are the response and its end of turn."""
    before, after = encode_prompt(tokenizer, prompt), encode_response(tokenizer, response)
    return EncodedExample(before + after, [False] * len(before) + [True] * len(after))


def encode_conversation(tokenizer: GemmaTokenizer, messages: Sequence[Message]) -> EncodedExample:
    """A whole conversation, with the newline after each turn; the targets are every model turn's content and end of
    turn.

    The ids are those of `apply_chat_template(messages, tokenize=True)` in `transformers` for texts without control
    pieces.

    Args:
        tokenizer: with turn marks.
        messages: `{"role", "content"}`; user and model (or assistant) alternate, user first. Gemma 3 puts a leading
            system message in front of the first user turn.

    Raises:
        InputError: empty or misordered messages, an unknown role, a system message where the family has none.
    """
    return _encode_turns(tokenizer, _check(tokenizer, messages))


def _encode_turns(tokenizer: GemmaTokenizer, turns: list[tuple[str, str]]) -> EncodedExample:
    _, end = _turn_marks(tokenizer)
    token_ids, is_target = [tokenizer.bos_token_id], [False]
    newline = tokenizer.encode("\n")
    for role, content in turns:
        opening = _open_turn(tokenizer, role, content if role == "user" else "")
        response = encode_response(tokenizer, content) if role == "model" else [end]
        token_ids += [*opening, *response, *newline]
        is_target += [False] * len(opening) + [role == "model"] * len(response) + [False] * len(newline)
    return EncodedExample(token_ids, is_target)


def _open_turn(tokenizer: GemmaTokenizer, role: str, content: str = "") -> list[int]:
    start, _ = _turn_marks(tokenizer)
    return [start, *tokenizer.encode(f"{role}\n{content}")]


def _turn_marks(tokenizer: GemmaTokenizer) -> tuple[int, int]:
    start, end = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id
    if start is None or end is None:
        raise InputError(
            "The tokenizer has no <start_of_turn> and <end_of_turn> pieces, so it cannot encode turns. Use a Gemma's "
            "tokenizer."
        )
    return start, end


def _check(tokenizer: GemmaTokenizer, messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Messages as (role, text) with the roles user and model, the system message in the first user turn."""
    if not messages:
        raise InputError("A conversation needs at least one message. Received: none")
    pairs = [_role_and_content(i, message) for i, message in enumerate(messages)]
    system = ""
    if pairs[0][0] == "system":
        if tokenizer.family not in _FAMILIES_WITH_SYSTEM:
            raise InputError(
                f"{tokenizer.family} has no system role (message 0). Expected user first; put the system text into the "
                "first user turn."
            )
        system = pairs.pop(0)[1] + "\n\n"
        if not pairs:
            raise InputError("A system message must be followed by a user turn. Received: a system message alone")
    for i, (role, _) in enumerate(pairs):
        expected = ("user", "model")[i % 2]
        if role != expected:
            raise InputError(
                f"Roles must alternate, user first. Expected {expected!r} in turn {i}, got {role!r}: "
                f"roles are {[each for each, _ in pairs]}. Merge or reorder the turns."
            )
    turns = [(role, content.strip()) for role, content in pairs]
    return [("user", system + turns[0][1]), *turns[1:]]


def _role_and_content(i: int, message: Message) -> tuple[str, str]:
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise InputError(f"Message {i} must be a mapping with `role` and `content`. Received: {message!r}")
    role, content = message["role"], message["content"]
    if role not in ("user", "system", *_MODEL_ROLES):
        raise InputError(f"Unknown role in message {i}. Expected user, model, assistant or system, got {role!r}.")
    if not isinstance(content, str):
        raise InputError(
            f"`content` of message {i} must be a string. Received: {type(content).__name__}. Only text is supported."
        )
    return ("model" if role in _MODEL_ROLES else role), content
