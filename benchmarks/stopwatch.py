"""The worker's side of a measurement: it works only when the parent says so, and reports each sample as a line of
JSON."""

import json
import os
import sys
import time

from pipelines.host.process_memory import peak_memory_gib


class Stopwatch:
    """Waits for the word "go" on standard input, times, answers on the descriptor given at start.

    The libraries under test may print to standard output, so that the answers go to a descriptor of their own.
    """

    def __init__(self, answers: int):
        self._answers = os.fdopen(answers, "w", buffering=1)
        self._started = 0.0

    def ready(self, **facts) -> None:
        """Tell the parent that the model is built."""
        self._send(event="ready", memory_gib=peak_memory_gib(), **facts)

    def wait(self) -> bool:
        """Block until the parent wants a sample: True; or wants no more: False. The clock starts at return."""
        word = sys.stdin.readline().strip()
        self._started = time.perf_counter()
        return word == "go"

    def report(self) -> None:
        """End the sample."""
        self._send(event="sample", seconds=time.perf_counter() - self._started, memory_gib=peak_memory_gib())

    def _send(self, **message) -> None:
        self._answers.write(json.dumps(message) + "\n")
