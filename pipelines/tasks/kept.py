"""What built-in tasks have drawn, kept in the cache folder: every stage of a run draws its thousands of rows before it
can start, which takes a second or two, and reading them takes hundredths.

A file is named for all that its rows depend on: the draw, the sources that make it, and NumPy. Its first line is a
checksum of the rest; what is damaged is drawn anew.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gemma_keras import random
from gemma_keras.files import write_text
from pipelines.host.paths import cache_folder
from pipelines.tasks import Task
from pipelines.tasks.items import TaskItem

FEW = 1000  # rows up to which drawing is not worth a file


def texts(task: Task, size: int, seed: int) -> list[str]:
    """`task.pretraining_texts(size, seed)`."""
    found: list[str] = _kept(lambda: task.pretraining_texts(size, seed), size, task.name, "texts", seed)
    return found


def prompts(task: Task, split: str, size: int, seed: int) -> list[TaskItem]:
    """`task.prompts(split, size, seed)`."""

    def make() -> list[list]:
        return [list(dataclasses.astuple(item)) for item in task.prompts(split, size, seed)]

    return [TaskItem(*fields) for fields in _kept(make, size, task.name, split, seed)]


def _kept(make: Callable[[], list], size: int, *draw: str | int) -> list:
    if size <= FEW:
        return make()
    key = hashlib.sha256(json.dumps([size, draw, np.__version__, _sources()]).encode()).hexdigest()
    path = cache_folder() / "tasks" / f"{key[:32]}.json"
    try:
        checksum, _, kept = path.read_text(encoding="utf-8").partition("\n")
        if checksum == _digest(kept):
            rows: list = json.loads(kept)
            return rows
    except (OSError, ValueError):  # not there, or damaged
        pass
    rows = make()
    kept = json.dumps(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{_digest(kept)}\n{kept}")
    except OSError:  # without a cache, or room in it, the rows are drawn at every start
        pass
    return rows


@functools.cache
def _sources() -> str:
    """Of all that draws: the tasks and the generator of random numbers."""
    files = [*sorted(Path(__file__).parent.rglob("*.py")), Path(random.__file__)]
    return _digest("".join(_digest(file.read_text(encoding="utf-8")) for file in files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
