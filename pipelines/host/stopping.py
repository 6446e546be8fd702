"""When a stop signal is obeyed: at once, or where nothing is lost.

Signals belong to the process, so this is one state of it. Between `defer` and `obey` a first signal only waits: the
loop that asked for it looks at `requested` between two updates, saves and raises. A second signal is obeyed at once.
"""

import contextlib
from collections.abc import Iterator

from pipelines.host.errors import Stopped

_requested: int | None = None
_is_deferred = False


def arrive(number: int) -> None:
    """What a handler does with a signal.

    Raises:
        Stopped: unless it may wait.
    """
    global _requested
    if _is_deferred and _requested is None:
        _requested = number
        return
    raise Stopped(number)


def requested() -> int | None:
    """The signal that waits, or None."""
    return _requested


def defer() -> None:
    """From now on a signal waits."""
    global _is_deferred
    _is_deferred = True


@contextlib.contextmanager
def obeyed() -> Iterator[None]:
    """Within, no signal waits; afterwards they do again where they did before.

    Raises:
        Stopped: one came before, or within.
    """
    global _is_deferred
    before = _is_deferred
    obey()
    try:
        yield
    finally:
        _is_deferred = before


def obey() -> None:
    """No signal waits any longer.

    Raises:
        Stopped: one came meanwhile.
    """
    global _requested, _is_deferred
    number, _requested, _is_deferred = _requested, None, False
    if number is not None:
        raise Stopped(number)
