"""A stage's `data` to typed examples in one call: rows read, columns checked, bad rows stopped at or set aside."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gemma_keras.text.marked_text import mark_in, texts_in
from pipelines.data.columns import (
    read_instruction,
    read_preference,
    read_prompt,
    read_text,
    unread_input,
)
from pipelines.data.jsonl import Row
from pipelines.data.rejects import Rejects
from pipelines.data.sources import load_rows
from pipelines.host.errors import DataError
from pipelines.schema.base import Use
from pipelines.schema.data import FileData, TaskData

_UNREAD_INPUT = (
    "column 'input' says more than nothing and is left out. Rows of Alpaca's shape are read whole, `input` below "
    "`instruction`, where the data specification names no columns"
)


def load_examples(
    spec: FileData | TaskData | str,
    use: Use,
    base_folder: Path,
    inputs: Mapping[str, Path] | None = None,
    seed: int = 0,
    rejects: Rejects | None = None,
) -> list:
    """Typed examples.

    Args:
        spec: what `load_rows` takes.
        use: "text" gives Text; "instruction" PromptCompletion, Conversation or Text; "prompt" Prompt; "preference"
            Preference.
        base_folder, inputs, seed: as of `load_rows`.
        rejects: default as `spec.on_bad_row` says. Hand one in to read `count` and `notices`, and to
            `write(folder)` afterwards.

    Raises:
        DataError: as `load_rows`, or no usable row.
    """
    rejects = rejects or Rejects(spec.on_bad_row if isinstance(spec, FileData) else "strict")
    rows = load_rows(spec, base_folder, inputs, seed, rejects)
    examples = [example for example, _ in read_examples(rows, spec, use, rejects)]
    if not examples:
        raise DataError(
            f"{_name(spec)}:1: no usable row; {rejects.count} were bad, the first because: {rejects.rows[0]['reason']}"
        )
    return examples


def read_examples(
    rows: Iterable[Row], spec: FileData | TaskData | str, use: Use, rejects: Rejects
) -> Iterator[tuple[Any, Row]]:
    """Each row that can be read, as an example and as it was.

    Args:
        rows: of `spec`, which says which columns hold what. use, rejects: as of `load_examples`.
    """
    names, hh_rlhf = (spec.columns, spec.format == "hh_rlhf") if isinstance(spec, FileData) else ({}, False)
    reader = _reader(use, names, hh_rlhf)
    for row in rows:
        example = None
        with rejects.guard(row.origin, row.values):
            example = reader(row)
            _note_marks(example, row.origin, rejects)
            if unread_input(row, names):
                rejects.notices.setdefault(_UNREAD_INPUT, row.origin)
        if example is not None:
            yield example, row


def _note_marks(example: Any, origin: str, rejects: Rejects) -> None:
    """Say it where a control piece is written out in a text: it stays text, and a chat written so is no chat."""
    read = {name: value for name, value in vars(example).items() if name != "columns"}  # which no model reads
    mark = next(filter(None, map(mark_in, texts_in(read))), None)
    if mark is not None:
        rejects.notices.setdefault(
            f"{mark} is written out in the text, where it is plain text and no control piece. Give such rows as "
            "`messages`; gemma_keras.from_marked_text(text) turns a text that you trust into them",
            origin,
        )


def _reader(use: Use, names: dict[str, str], hh_rlhf: bool) -> Callable:
    if use == "text":
        return lambda row: read_text(row, names)
    reader = {"instruction": read_instruction, "prompt": read_prompt, "preference": read_preference}[use]
    return lambda row: reader(row, names, hh_rlhf)


def _name(spec: FileData | TaskData | str) -> str:
    if isinstance(spec, str):
        return spec
    return spec.path if isinstance(spec, FileData) else spec.task
