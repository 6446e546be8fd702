"""A command's output that lasts as long as the command: who reads it may leave, the work goes on.

A reader that has gone (`| head`, a terminal that was closed), a full disk behind `>` or an encoding without some letter
would otherwise end hours of work, or hide how it ended.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class LastingStream:
    """A text stream that goes silent where it can no longer be written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._go_silent()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._go_silent()

    def _go_silent(self) -> None:
        # What is left in buffers, here and in processes to come, has somewhere to go then.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Within, standard output and error are `LastingStream`s; a letter that their encoding lacks is replaced."""
    _occupy_descriptors()
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    opened: list[TextIO] = []
    for name, stream in before.items():
        if stream is None:  # closed by whoever started us
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  closed below
            opened.append(stream)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        setattr(sys, name, LastingStream(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)
        for stream in opened:
            stream.close()


def _occupy_descriptors() -> None:
    """Leave none of 0, 1 and 2 free: the next file that is opened would get it, and all that is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
