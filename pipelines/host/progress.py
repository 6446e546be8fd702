"""Progress of long work: a bar on a terminal, an occasional line elsewhere, nothing when quiet.

Written to stderr, so that a command's output stays clean. Shows the rate and the time left, both from the time since
the start; before the first step, which compiles, the time that it has taken so far.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import rich.console
import rich.progress
import rich.table

from pipelines.host.activity import BEAT_SECONDS, Activity, Beat, LiveText, duration

HEADLINE_METRICS = (
    "loss",
    "eval_loss",
    "accuracy",
    "eval_accuracy",
    "reward",
    "kl_sequence",
    "eval_reward",
    "eval_gold",
)
"""Metrics shown beside the rate, where a stage logs many; all of them are in `metrics.jsonl`."""


class Progress:
    """Counts steps of one piece of work. A context manager, and an iterator over `range(total)`.

    Args:
        total: steps of the whole work, or None where it is not known.
        description: what is done, e.g. "training".
        unit: what `total` counts. work_unit: what `advance(work=...)` counts, e.g. "tokens"; its rate is shown too.
        quiet: show nothing.
        stream: where to write, default stderr. seconds_between_lines: between plain lines, where the stream is no
            terminal.
        clock: seconds, monotonic.
        activity: what is shown before and after; it makes room.
        before: steps that an earlier process did: they count as done, and say nothing of the rate.
    """

    def __init__(
        self, total: int | None, description: str, unit: str = "steps", work_unit: str = "tokens", quiet: bool = False,
        stream: TextIO | None = None, seconds_between_lines: float = BEAT_SECONDS, clock: Callable[[],
            float] = time.monotonic, activity: Activity | None = None, before: int = 0,
    ):  # fmt: skip
        self.total, self.description, self.unit, self.work_unit, self.quiet = total, description, unit, work_unit, quiet
        self.done, self.work = before, 0.0
        self._before = before
        self._stream = stream if stream is not None else sys.stderr
        self._seconds_between_lines, self._clock = seconds_between_lines, clock
        self._metrics: dict[str, Any] = {}
        self._activity = activity
        self._bar: Any = None
        self._task: Any = None
        self._beat: Beat | None = None
        self._lock = threading.Lock()
        self._started: float | None = None
        self._last_line = 0.0
        self._shown = ""

    def __enter__(self) -> "Progress":
        if self._activity is not None:
            self._activity.pause()
        self._started = self._last_line = self._clock()
        if self.quiet:
            return self
        if self._stream.isatty():
            self._bar, self._task = _open_bar(self._stream, self.description, self.total, self.done, self._live_figures)
        else:
            self._beat = Beat(self._write_when_due)
        return self

    def __exit__(self, *error: object) -> None:
        if self._beat is not None:
            self._beat.stop()
            self._beat = None
        if self._bar is not None:
            self._shown = self.figures()
            self._bar.update(self._task, completed=self.done)
            self._bar.stop()
            self._bar = None
        elif not self.quiet and self.done > self._before:
            self._write_line()
        self._started = None
        if self._activity is not None and error == (None, None, None):
            self._activity.resume("finishing")

    def __iter__(self) -> Iterator[int]:
        if self.total is None:
            raise ValueError("Only work with a known `total` can be iterated. Received: total=None")
        if self._started is not None:
            yield from self._steps(self.total)
            return
        with self:
            yield from self._steps(self.total)

    def advance(self, steps: int = 1, work: float = 0) -> None:
        """Count finished steps, and the work in them (e.g. tokens)."""
        self.done += steps
        self.work += work
        if self._bar is not None:
            self._shown = self.figures()
            self._bar.update(self._task, completed=self.done)
        elif self._started is not None:
            self._write_when_due()

    def note(self, **metrics: Any) -> None:
        """Show these figures beside the rate from now on, e.g. the loss."""
        self._metrics.update(metrics)

    def figures(self) -> str:
        """Rate, time left and noted metrics as text."""
        elapsed = max(self._clock() - self._started, 1e-9) if self._started is not None else 0.0
        parts = []
        done = self.done - self._before
        if elapsed and done:
            parts.append(f"{_short(done / elapsed)} {self.unit}/s")
            if self.work:
                parts.append(f"{_short(self.work / elapsed)} {self.work_unit}/s")
            if self.total is not None and self.done < self.total:
                parts.append(f"{duration((self.total - self.done) * elapsed / done)} left")
            else:
                parts.append(f"{duration(elapsed)} taken")
        elif elapsed >= 1:
            parts.append(f"compiling for the first {self.unit}, {duration(elapsed)}")
        shown = [name for name in HEADLINE_METRICS if name in self._metrics] or list(self._metrics)[:3]
        parts += [f"{name} {self._metrics[name]:.4g}" for name in shown if isinstance(self._metrics[name], int | float)]
        return ", ".join(parts)

    def _steps(self, total: int) -> Iterator[int]:
        for step in range(total):
            before = self.done
            yield step
            if self.done == before:  # the caller may have advanced by itself, to count work too
                self.advance()

    def _live_figures(self) -> str:
        """Of a bar: as of the last step, so that the time left does not waver within a step; before the first, now."""
        return self._shown if self.done > self._before else self.figures()

    def _write_when_due(self) -> None:
        with self._lock:  # called by the beat as well
            if not self.quiet and self._clock() - self._last_line >= self._seconds_between_lines:
                self._write_line()

    def _write_line(self) -> None:
        self._last_line = self._clock()
        of = f"/{self.total} ({100 * self.done // self.total}%)" if self.total else ""
        self._stream.write(f"{self.description}: {self.done}{of}, {self.figures()}\n")
        self._stream.flush()


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _open_bar(
    stream: TextIO, description: str, total: int | None, done: int, figures: Callable[[], str]
) -> tuple[rich.progress.Progress, rich.progress.TaskID]:
    def column(**options: Any) -> rich.table.Column:
        return rich.table.Column(no_wrap=True, **options)

    # Where the terminal is narrow the figures are cut at their end, never the description, the bar or the count.
    bar = rich.progress.Progress(
        rich.progress.SpinnerColumn(finished_text=" "),
        rich.progress.TextColumn("{task.description}", markup=False, table_column=column(min_width=len(description))),
        rich.progress.BarColumn(bar_width=16, table_column=column(min_width=16)),
        rich.progress.MofNCompleteColumn(table_column=column(min_width=9)),
        LiveText(figures, table_column=column(ratio=1, overflow="ellipsis")),
        console=rich.console.Console(file=stream), refresh_per_second=4, expand=True,
    )  # fmt: skip
    bar.start()
    return bar, bar.add_task(description, total=total, completed=done)
