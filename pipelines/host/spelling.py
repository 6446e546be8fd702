"""Names as messages say them: the closest known one, and what a value is."""

import difflib
from collections.abc import Iterable
from typing import Any


def did_you_mean(name: str | int, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no known name is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def describe(value: Any) -> str:
    """A value as it is called in messages, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text}" if isinstance(value, str) else text
