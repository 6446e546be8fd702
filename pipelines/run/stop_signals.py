"""Signals to the runner while a stage works: passed on to the stage's process, remembered, obeyed between stages."""

import contextlib
import os
import signal
import subprocess
import threading
import types
from collections.abc import Iterator

from pipelines.host import stopping
from pipelines.host.errors import Stopped

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a run to stop: Ctrl-C, a scheduler, a terminal that closes."""
GRACE_SECONDS = 30.0


def is_to_outlive(number: int) -> bool:
    """Whether whoever started this process wants it to outlive a signal: SIGHUP, as `nohup` does. That SIGINT is
    ignored says less: a script's shell does so for all that it starts in the background."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


class StopSignals:
    """The signals of one run.

    Args:
        grace_seconds: for a stage to end its update and save; then it is killed.

    Attributes:
        received: number of the first signal, or None.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.received: int | None = None
        self._grace_seconds, self._was_late = grace_seconds, False
        self._child: subprocess.Popen | None = None
        self._raise_at_once = False

    @contextlib.contextmanager
    def installed(self) -> Iterator["StopSignals"]:
        """Handle the signals; other threads than the main one can not, there this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in STOPPING if not is_to_outlive(number)}
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Stopped` where a signal has come."""
        if self.received is not None:
            raise Stopped(self.received, self._grace_seconds if self._was_late else None)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Within, a signal raises `Stopped`, at once or between two updates: for a stage in this process."""
        self._raise_at_once = True
        try:
            self.check()
            yield
        finally:
            self._raise_at_once = False

    def wait_for(self, child: subprocess.Popen) -> int:
        """Wait for a process, asked to end by the first signal; a second one, or a stage that goes on, kills it."""
        self._child = child
        try:
            if self.received is not None:
                child.terminate()
            while self.received is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(timeout=1.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=self._grace_seconds)
            self._was_late = True
            child.kill()
            return child.wait()
        finally:
            self._child = None

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        first, self.received = self.received is None, self.received or number
        if self._child is not None:
            # SIGTERM for all of them: at SIGINT a process that is still being loaded would show a traceback.
            self._child.terminate() if first else self._child.kill()
        elif self._raise_at_once:
            stopping.arrive(number)
        elif not first:
            os._exit(128 + number)

    def _pause(self, number: int, frame: types.FrameType | None) -> None:
        """Ctrl-Z: the stage, which has a group of its own, stops with its runner and goes on with it."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
