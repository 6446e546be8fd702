"""Lines from the terminal with editing and a history that is kept; from a pipe, lines."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.host.paths import cache_folder

try:
    import readline
except ImportError:  # not built into every Python
    readline = None  # type: ignore[assignment]

HISTORY_FILE = "chat_history"
MOST_LINES = 1000
PROMPT = "> "


@contextlib.contextmanager
def lines() -> Iterator[Callable[[], str]]:
    """A function that reads a line, with a prompt on a terminal; raises EOFError at the end."""
    if not sys.stdin.isatty():
        yield input
        return
    with _history(cache_folder() / HISTORY_FILE):
        yield lambda: input(PROMPT)


@contextlib.contextmanager
def _history(file: Path) -> Iterator[None]:
    """What was typed in earlier conversations within reach of the arrow keys, and this one's added to it.

    A history that cannot be read or written is none: no conversation ends for it.
    """
    if readline is None:
        yield
        return
    readline.clear_history()
    readline.set_history_length(MOST_LINES)
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            # For its owner's eyes only, before anything is in it.
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(file)
