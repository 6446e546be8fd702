"""Saving a model folder so that it is there whole or not at all, by `gemma_keras/files.py`; and a full
disk told to the user.

What an unfinished stage keeps, optimizer and step included, is in `state.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemma_keras.files import atomic_folder
from pipelines.host.files import disk_error, is_disk_error


def save_model(model: Any, folder: str | Path) -> Path:
    """Write a model as a Hugging Face folder, atomically.

    Args:
        model: has `save_to_preset(folder)`: GemmaCausalLM or GemmaRewardModel.
        folder: where it shall stand. What stood there is replaced.

    Returns:
        The folder.

    Raises:
        DiskError: no room. What stood there before still does.
    """
    return write_folder(Path(folder), lambda temporary: model.save_to_preset(str(temporary)))


def write_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """Have `write` fill a folder, and put it at `folder` when it is complete.

    Args:
        folder: where it shall stand; all that is in a folder there is replaced.
        write: is given an empty folder to fill.

    Raises:
        DiskError: the disk is full, a quota or a file size limit is reached.
    """
    try:
        with atomic_folder(folder, stale=("*",)) as temporary:
            write(temporary)
    except Exception as error:
        if is_disk_error(error):
            raise disk_error(error, folder) from error
        raise
    return folder
