"""Errors that a user can act on, each with the exit code of the command line.

Anything else that leaves a stage is a bug: it is shown with its traceback and exits with 70.
"""


class WorkflowError(Exception):
    """Base of the errors shown as plain lines, without a traceback. `exit_code`: what the command exits with."""

    exit_code = 70


class ConfigError(WorkflowError):
    """The workflow, an option or the installation is wrong: unknown key, wrong type, unknown or missing backend,
    missing extra."""

    exit_code = 2


class DataError(WorkflowError):
    """Input data is missing or wrong. The message starts with `file:line:`."""

    exit_code = 65


class InternalError(WorkflowError):
    """The program failed in a way that is not the user's doing."""

    exit_code = 70


class MemoryShortage(InternalError):
    """A device, or the machine, had no memory left."""


class GateError(WorkflowError):
    """A figure is not what a later stage requires. Finished stages are kept.

    Args:
        stage: the one that was not started.
    """

    exit_code = 3

    def __init__(self, message: str, stage: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage, self.reason = stage, message


class DiskError(WorkflowError):
    """Nothing more can be written: disk full, quota or file size limit reached. Finished stages are untouched."""

    exit_code = 74


class Stopped(BaseException):
    """A stop signal arrived. Not an `Exception`, so that no handler of ordinary errors swallows it.

    Args:
        signal_number: e.g. `signal.SIGTERM`; the exit code is 128 plus it (130 and 143).
        grace_seconds: after which it was killed, as it did not stop by itself; None where it did.
    """

    def __init__(self, signal_number: int, grace_seconds: float | None = None):
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number
        self.grace_seconds = grace_seconds
        self.exit_code = 128 + signal_number
