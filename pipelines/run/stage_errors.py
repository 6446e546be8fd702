"""Which errors of a stage are the user's to mend, and what the command line says about them."""

import builtins
import errno
from pathlib import Path
from typing import Any

from gemma_keras.backend_choice import BackendError
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.errors import InputError
from gemma_keras.install_advice import install_command
from pipelines.host.errors import ConfigError, DataError, DiskError, InternalError, MemoryShortage, WorkflowError
from pipelines.host.files import disk_error, is_disk_error

ERROR_FILE = "error.json"
EXTRAS = {
    "gguf": "gguf", "keras_hub": "keras-hub", "trl": "trl", "transformers": "trl",
    "jax": "jax", "tensorflow": "tensorflow", "torch": "torch",
}  # fmt: skip
# Libraries that write through native code put the system's reason into the text alone.
_DISK_TEXTS = ("No space left on device", "File too large", "Disk quota exceeded")
_SYSTEM_ERRORS = {
    errno.EACCES: "Choose a place that you may write to, with --out, or ask its owner",
    errno.EPERM: "Choose a place that you may write to, with --out, or ask its owner",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "The system has no more open files to give: end other programs",
    errno.ENOLCK: "The file system gives no locks: choose a local one with --out",
    errno.ENAMETOOLONG: "Choose a shorter place, with --out",
}
_MEMORY_TEXTS = (
    "RESOURCE_EXHAUSTED",
    "out of memory",
    "OOM when allocating",
    "DefaultCPUAllocator: can't allocate memory",
)


def known_error(error: BaseException, folder: Path) -> WorkflowError | None:
    """The error as the user should see it, or None where it is a bug of ours.

    Args:
        error: what a stage raised. folder: where it was writing, named where the disk is full.
    """
    if isinstance(error, WorkflowError):
        return error
    if is_disk_error(error) or any(text in str(error) for text in _DISK_TEXTS):
        return disk_error(error, folder)
    if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
        where = error.filename or folder
        return ConfigError(f"{where}: {error.strerror}. {_SYSTEM_ERRORS[error.errno]}")
    if isinstance(error, BackendError | InputError):
        return ConfigError(str(error))
    if isinstance(error, CheckpointError):
        return DataError(str(error))
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in EXTRAS:
            return ConfigError(f"the package {package!r} is not installed. Run: {install_command(EXTRAS[package])}")
    if isinstance(error, builtins.MemoryError) or any(text in str(error) for text in _MEMORY_TEXTS):
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return MemoryShortage(
            f"out of memory ({first[:200]}). Lower micro_batch_size, or max_length, or set remat: block, or dtype: "
            "mixed_bfloat16, then run again"
        )
    return None


def error_record(error: WorkflowError) -> dict[str, Any]:
    """What `error.json` says, for the process that waits."""
    record = {"message": str(error), "exit_code": error.exit_code}
    return {**record, "no_memory": True} if isinstance(error, MemoryShortage) else record


def from_record(record: dict[str, Any]) -> WorkflowError:
    """The error that `error_record` described; the exit code is kept also where its class is not one of ours."""
    if record.get("no_memory"):
        return MemoryShortage(str(record["message"]))
    error = WorkflowError(str(record["message"]))
    for kind in (ConfigError, DataError, DiskError, InternalError):
        if kind.exit_code == record["exit_code"]:
            error = kind(str(record["message"]))
    error.exit_code = int(record["exit_code"])
    return error
