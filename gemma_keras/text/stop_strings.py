"""Texts that end an answer, and what of an answer can be shown while it grows."""

from collections.abc import Iterable

_INCOMPLETE = "\ufffd"  # what a character's first bytes decode to


class StopStrings:
    """Texts that end an answer where they first stand in it; they are cut off.

    Args:
        strings: one, several, or None for none.

    Raises:
        ValueError: an empty one, or one that is no string.
    """

    def __init__(self, strings: str | Iterable[str] | None = None):
        self.strings = [strings] if isinstance(strings, str) else list(strings or ())
        for string in self.strings:
            if not isinstance(string, str) or not string:
                raise ValueError(f"`stop` must be strings that are not empty. Received: {string!r}")

    def __bool__(self) -> bool:
        return bool(self.strings)

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the first of them, and whether there was one."""
        places = [place for place in map(text.find, self.strings) if place >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def safe_part(self, text: str) -> str:
        """What of a growing text will stay, whatever follows: without a character whose bytes are not all there, and
        without an end that may become one of these strings."""
        text = text.rstrip(_INCOMPLETE)
        longest = 0
        for string in self.strings:
            for length in range(min(len(string) - 1, len(text)), longest, -1):
                if text.endswith(string[:length]):
                    longest = length
                    break
        return text[: len(text) - longest]
