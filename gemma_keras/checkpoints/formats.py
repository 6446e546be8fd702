"""The file formats: a line each, the name of its file here, in the order in which they are asked. Nothing else knows
them."""

import importlib
from pathlib import Path

from gemma_keras.checkpoints.format import Format
from gemma_keras.checkpoints.interrupted_saves import finish_save
from gemma_keras.files import can_exist

FILES = (
    "gguf",
    "keras_hub",
    "hugging_face",
)

FORMATS: dict[str, Format] = {name: importlib.import_module(f"gemma_keras.checkpoints.{name}").FORMAT for name in FILES}
"""Name, as in `convert --format NAME`, → format."""

FILE_SUFFIXES = tuple(form.suffix for form in FORMATS.values() if form.suffix is not None)
*_ALL_BUT_ONE, _LAST = (form.description for form in reversed(FORMATS.values()))
MODEL_FILES = f"{', '.join(_ALL_BUT_ONE)} or {_LAST}"
"""What a model can be on disk, in words."""

DEFAULT = FORMATS["hugging_face"]
"""What is written where nobody says otherwise: our native format."""


def recognize(source: str | Path) -> Format | None:
    """The format of a path or handle, or None. A save into a folder that was interrupted at its end is finished first.

    Raises:
        CheckpointError: see `finish_save`.
    """
    if not can_exist(source):
        return None
    finish_save(source)
    return next((form for form in FORMATS.values() if form.recognizes(source)), None)


def format_of_target(target: Path) -> Format:
    """The format that a new file's or folder's name asks for."""
    return next(
        (form for form in FORMATS.values() if form.suffix is not None and form.suffix == target.suffix), DEFAULT
    )
