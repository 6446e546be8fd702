"""`python -m pipelines` and `gemma-keras`: the command line, and signals while it is being loaded and has ended."""

import contextlib
import os
import signal
import sys
import types

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the command; returns its exit code."""
    interrupt = signal.getsignal(signal.SIGINT)
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # else somebody wants it ignored
            signal.signal(number, _end)
    from pipelines.cli import main as command

    signal.signal(signal.SIGINT, interrupt)  # a command may have its own use for Ctrl-C
    try:
        code = command()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if code > 128:  # a second signal while Python cleans up would end it with another code
        _end(code - 128)
    for number in SIGNALS:  # and so would a late one now that all is done
        signal.signal(number, signal.SIG_IGN)
    return code


def _end(number: int, frame: types.FrameType | None = None) -> None:
    """End at once, as a signal asks. Some imports would turn an exception into another one, or lose it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
