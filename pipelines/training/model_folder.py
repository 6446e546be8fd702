"""Saving a model folder so that it is there whole or not at all.

A model is written under a temporary name beside its place, flushed to disk, then renamed. A reader, or a run that
starts again after a kill at any moment, sees the old state or the new one; what an earlier kill left under a temporary
name is removed by the next save. A stage's training state (optimizer, step) is not kept: a stage that was interrupted
starts over.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.host.files import disk_error, is_disk_error, recover_folder, replace_folder


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
    """Have `write` fill a folder under a temporary name, flush it to disk and rename it to `folder`.

    Args:
        folder: where the folder shall stand; a folder there is replaced.
        write: is given an empty folder to fill.

    Raises:
        DiskError: the disk is full, a quota or a file size limit is reached.
    """
    temporary = folder.with_name(f".{folder.name}.writing")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        replace_folder(temporary, folder)
    except Exception as error:
        if is_disk_error(error):
            raise disk_error(error, folder) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
