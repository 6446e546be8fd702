"""Text of models, data and files for people to read: nothing in it moves a cursor or turns the direction of writing."""

import unicodedata

# Marks that turn the direction of writing, which can make a line read otherwise than it is.
_DIRECTION = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def visible(text: str) -> str:
    """A text with its control characters, direction marks and halves of surrogate pairs spelled, such as `\\\\x1b` or
    `\\\\u202e`; newlines and tabs stay."""
    return "".join(map(_spelled, text)) if not text.isprintable() else text


def _spelled(letter: str) -> str:
    if letter in "\n\t" or not (unicodedata.category(letter) in ("Cc", "Cs") or ord(letter) in _DIRECTION):
        return letter
    return letter.encode("unicode_escape").decode("ascii")
