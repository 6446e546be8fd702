"""Which prompt belongs to which split: decided by a hash of its content, so that any sizes of any splits stay disjoint.

The content of a prompt about a list is the list alone: `reverse: tin cup` and `secret: copy: tin cup` have the same
content and lie in the same split. The content of a question about the village is the fact together with its wording,
since the facts themselves must be known to be asked. Marks of refusal, case, punctuation and spaces are no content.
"""

import hashlib
import re

# Upper ends of each split's share of the hash range, in percent.
SPLITS = {"pretraining": 40, "sft": 60, "preferences": 72, "rl": 84, "heldout": 100}
MARKS = ("secret: {prompt}", "private: {prompt}", "{prompt} this is secret.", "{prompt} keep this private.")
_MARKED = tuple(tuple(mark.split("{prompt}")) for mark in MARKS)  # what stands before a prompt, and after it
_WORD = re.compile(r"[a-z0-9]+")


def content(prompt: str) -> str:
    """The content of a prompt as words with single spaces."""
    text = prompt.strip().lower()
    for before, after in _MARKED:
        if text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after):
            text = text[len(before) : len(text) - len(after)]
    return " ".join(_WORD.findall(text.rsplit(":", 1)[-1]))


def content_hash(prompt: str) -> str:
    """Hexadecimal SHA-256 of the prompt's content."""
    return hashlib.sha256(content(prompt).encode()).hexdigest()


def split_of(prompt: str) -> str:
    """The one split that may hold the prompt."""
    return split_of_hash(content_hash(prompt))


def split_of_hash(key: str) -> str:
    """The same, by what `content_hash` gives."""
    percent = int(key[:12], 16) * 100 / 16**12
    return next(name for name, end in SPLITS.items() if percent < end)
