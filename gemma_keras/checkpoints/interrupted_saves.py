"""Saves that were complete when their process died, but not in their places: finished before a folder is read."""

from pathlib import Path

from gemma_keras import files
from gemma_keras.checkpoints.errors import CheckpointError


def finish_save(folder: str | Path) -> None:
    """As `files.finish_save`, where there is such a folder.

    Raises:
        CheckpointError: this process may not write there, or what is there was left by no save.
    """
    try:
        files.finish_save(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: a save was interrupted when it had put its files into {files.SAVED}, and they cannot "
            f"take their places: {error.strerror or error}. Open the folder once as a user who may write there."
        ) from error
