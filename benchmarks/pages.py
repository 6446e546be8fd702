"""Tables that commands write into pages of Markdown, between two marks."""

from collections.abc import Sequence
from pathlib import Path


def write_between(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what stands between two marks of a page.

    Raises:
        ValueError: a mark is missing.
    """
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page}: expected the marks {begin!r} and {end!r}, one after the other.")
    page.write_text(before + "\n".join([begin, "", *lines, "", end]) + after, encoding="utf-8")
