"""A limit on the time that code of others may take."""

import contextlib
import signal
import threading
import types
from collections.abc import Iterator


class TimeIsUp(BaseException):
    """The limit was reached. Not an `Exception`, so that no handler of ordinary errors swallows it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within, `TimeIsUp` is raised where the code stands after so many seconds, and again each second after that.

    By SIGALRM, whose handler runs in the main thread between two steps of Python: threads of a backend go on. What
    sleeps, waits for a socket or searches with `re` is interrupted; other C code is when it returns. In any other
    thread there is no limit, nor after code that sets an alarm of its own.

    Args:
        seconds: float > 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: types.FrameType | None) -> None:
        raise TimeIsUp

    handler = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # also where the alarm came on the way out
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if timer[0]:  # somebody's around us
            signal.setitimer(signal.ITIMER_REAL, *timer)
