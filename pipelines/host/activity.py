"""Says what a program does while it has nothing to count: a spinner on a terminal, a line now and then elsewhere,
nothing when quiet. Written to stderr, as all progress is."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import rich.console
import rich.progress
import rich.text

from pipelines.host.visible_text import visible

BEAT_SECONDS = 10.0
"""No longer silence than this, so that nobody takes a long compilation for a hang."""


def duration(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Beat:
    """Calls a function from a thread of its own every second, or so many, until it is stopped.

    Not as seldom as lines are due: the function decides whether a line is due, by a clock that tests can set.
    """

    def __init__(self, function: Callable[[], None], seconds: float = 1.0) -> None:
        self._function, self._seconds, self._stop = function, seconds, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")
        self._thread.start()

    def stop(self) -> None:
        """Call it no more; returns when a call in progress has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._function()


class LiveText(rich.progress.ProgressColumn):
    """A column whose text is asked for whenever the terminal is drawn, cut at its end where there is no room."""

    def __init__(self, text: Callable[[], str], **options: Any) -> None:
        super().__init__(**options)
        self._text = text

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(self._text(), overflow="ellipsis", no_wrap=True)


class Activity:
    """What is being done, with the time since it began. A context manager.

    Args:
        name: whose work it is; stands before each text. quiet: show nothing.
        stream: where to write, default stderr. clock: seconds, monotonic.
    """

    def __init__(
        self, name: str, quiet: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.quiet = name, quiet
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._what: str | None = None
        self._is_paused = False
        self._began = self._last_line = 0.0
        self._beat: Beat | None = None
        self._spinner: rich.progress.Progress | None = None

    def __enter__(self) -> "Activity":
        return self

    def __exit__(self, *error: object) -> None:
        self.pause()

    def say(self, what: str) -> None:
        """From now on this is being done; shown at once, unless something else has its place."""
        if self.quiet or self._is_paused or what == self._what:
            return
        self._what, self._began = what, self._clock()
        if not self._stream.isatty():
            self._write_line()
        if self._spinner is None and self._beat is None:
            self._show()

    def resume(self, what: str) -> None:
        """Show again what is being done, after `pause`."""
        self._is_paused = False
        self.say(what)

    def pause(self) -> None:
        """Show nothing until `resume`: a bar, or nothing at all, takes the place."""
        self._is_paused = True
        if self._spinner is not None:
            self._spinner.stop()
        if self._beat is not None:
            self._beat.stop()
        self._spinner = self._beat = self._what = None

    def _show(self) -> None:
        if self._stream.isatty():
            self._spinner = rich.progress.Progress(
                rich.progress.SpinnerColumn(),
                LiveText(self._text),
                console=rich.console.Console(file=self._stream),
                refresh_per_second=4,
                transient=True,
            )
            self._spinner.add_task("", total=None)
            self._spinner.start()
        else:
            self._beat = Beat(self._write_when_due)

    def _text(self) -> str:
        elapsed = self._clock() - self._began
        return visible(f"{self.name}: {self._what}") + (f", {duration(elapsed)}" if elapsed >= 1 else "")

    def _write_when_due(self) -> None:
        if self._clock() - self._last_line >= BEAT_SECONDS:
            self._write_line()

    def _write_line(self) -> None:
        self._last_line = self._clock()
        self._stream.write(self._text() + "\n")
        self._stream.flush()
