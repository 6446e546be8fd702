"""The worker's side of a measurement: it works only when the parent says so, and reports each sample as a line of
JSON."""

import json
import os
import sys
import time

from pipelines.host.process_memory import peak_memory_gib


class Stopwatch:
    """Waits for the word "go" on standard input, times, answers on the descriptor given at start.

    The libraries under test may print to standard output, so that the answers go to a descriptor of their own. A sample
    of several steps calls `lap` after each; what follows the last lap is nobody's step and does not count.
    """

    def __init__(self, answers: int):
        self._answers = os.fdopen(answers, "w", buffering=1)
        self._started = self._since = 0.0
        self._laps: list[float] = []
        self._first: float | None = None

    def ready(self, **facts) -> None:
        """Tell the parent that the model is built."""
        self._send(event="ready", memory_gib=peak_memory_gib(), **facts)

    def wait(self) -> bool:
        """Block until the parent wants a sample: True; or wants no more: False. The clock starts at return."""
        word = sys.stdin.readline().strip()
        self._started = self._since = time.perf_counter()
        self._laps, self._first = [], None
        return word == "go"

    def begin(self) -> None:
        """What came before this in the sample belongs to no step."""
        self._since = time.perf_counter()

    def lap(self) -> None:
        """End a step; the next one begins."""
        now = time.perf_counter()
        self._laps.append(now - self._since)
        self._first = now - self._started if self._first is None else self._first
        self._since = now

    def report(self) -> None:
        """End the sample; without laps it was one step."""
        if not self._laps:
            self.lap()
        self._send(event="sample", seconds=self._laps, until_first=self._first, memory_gib=peak_memory_gib())

    def _send(self, **message) -> None:
        self._answers.write(json.dumps(message) + "\n")
