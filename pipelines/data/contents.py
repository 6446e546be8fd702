"""What a prompt says, as hashes: which prompts are the same, and which a model has learned from.

Two texts are *exactly* the same prompt where their turns are equal. They have the same *content* where they differ in
case, spaces, punctuation or Unicode form alone; a built-in task says itself what its content is, see
`TaskItem.content`. Everything about held-out data is decided by content.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from gemma_keras.files import write_text
from pipelines.data.columns import Conversation, Example, Text, as_messages
from pipelines.data.hh_rlhf import Message
from pipelines.data.turns import MODEL_ROLES

SEEN_FILE = "seen_prompts.txt"
HASH_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class PromptHashes:
    """The prompts that an example holds: one, or one for each turn of the model in a conversation.

    Attributes:
        group: content of its first user turn. Examples of one group are held out together, so that no prompt on one
            side is the beginning of a conversation on the other.
        contents, exact: of every prompt, in order, by content and letter by letter.
    """

    group: str
    contents: tuple[str, ...]
    exact: tuple[str, ...]

    @property
    def content(self) -> str:
        """Of the last prompt."""
        return self.contents[-1]


@dataclasses.dataclass(frozen=True)
class SeenPrompts:
    """The prompts that a model, and those before it, learned from.

    Attributes:
        contents, exact: hashes as in `PromptHashes`.
    """

    contents: frozenset[str] = frozenset()
    exact: frozenset[str] = frozenset()

    @classmethod
    def of(cls, examples: Iterable[PromptHashes]) -> "SeenPrompts":
        """The prompts of some examples."""
        examples = list(examples)
        return cls(
            frozenset(one for example in examples for one in example.contents),
            frozenset(one for example in examples for one in example.exact),
        )

    @classmethod
    def read(cls, folder: Path) -> "SeenPrompts | None":
        """What `write` left in a folder; None where nothing did, as beside models that were made elsewhere."""
        path = folder / SEEN_FILE
        if not path.is_file():
            return None
        lines = path.read_text(encoding="utf-8").split()
        contents, exact = (frozenset(line[2:] for line in lines if line.startswith(mark)) for mark in ("c:", "e:"))
        return cls(contents, exact)

    def __or__(self, other: "SeenPrompts") -> "SeenPrompts":
        return SeenPrompts(self.contents | other.contents, self.exact | other.exact)

    def write(self, folder: Path) -> None:
        """Write the hashes, a line each: `c:` and a content, `e:` and an exact prompt, in rising order."""
        lines = [f"c:{one}\n" for one in sorted(self.contents)] + [f"e:{one}\n" for one in sorted(self.exact)]
        write_text(folder / SEEN_FILE, "".join(lines))

    def overlap(self, examples: Iterable[PromptHashes]) -> dict[str, int]:
        """How many of some prompts are among these: `same_text` letter by letter, `same_content` by content."""
        examples = list(examples)
        return {
            "same_text": sum(example.exact[-1] in self.exact for example in examples),
            "same_content": sum(example.content in self.contents for example in examples),
        }


def prompt_hashes(example: Example) -> PromptHashes:
    """The prompts of an example; of plain text, the text itself."""
    if isinstance(example, Text):
        content = _digest(normalized(example.text))
        return PromptHashes(content, (content,), (_digest(example.text),))
    asked = _asked(example.messages) if isinstance(example, Conversation) else [as_messages(example.prompt)]
    exact = tuple(_digest(_as_text(prompt)) for prompt in asked)
    known = None if isinstance(example, Conversation) else example.content
    if known is not None:
        return PromptHashes(known, (known,), exact)
    contents = tuple(_digest(normalized(_as_text(prompt))) for prompt in asked)
    opening = next((turn for turn in asked[0] if turn["role"] == "user"), asked[0][0])
    return PromptHashes(_digest(normalized(opening["content"])), contents, exact)


def normalized(text: str) -> str:
    """A text without what does not change its content: case, spaces, punctuation, and the form of its characters
    (Unicode NFKC). A text of nothing but punctuation keeps it."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = plain.translate(_SPACES).split()
    return " ".join(words or plain.split())


class _SpaceForPunctuation(dict[int, int]):
    """Code point → that of a space for punctuation, else itself; filled as letters come."""

    def __missing__(self, letter: int) -> int:
        self[letter] = ord(" ") if unicodedata.category(chr(letter)).startswith("P") else letter
        return self[letter]


_SPACES = _SpaceForPunctuation()


def _asked(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """What stands before each turn of the model: the prompts that a conversation trains on."""
    return [messages[:number] for number, turn in enumerate(messages) if turn["role"] in MODEL_ROLES]


def _as_text(prompt: Sequence[Message]) -> str:
    roles = ("model" if turn["role"] in MODEL_ROLES else turn["role"] for turn in prompt)
    return "\n\n".join(f"{role}\n{turn['content']}" for role, turn in zip(roles, prompt, strict=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
