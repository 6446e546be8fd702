"""What can be said about a workflow's data before anything runs: files exist, and every row of them can be read as its
stage will read it. A bad row must not show after the stages before it have trained for hours."""

import dataclasses
import functools
from collections.abc import Callable

from gemma_keras.files import need_file
from pipelines.data.examples import load_examples
from pipelines.data.jsonl import read_jsonl
from pipelines.data.rejects import Rejects
from pipelines.data.sources import needs_datasets
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import find_path
from pipelines.host.spelling import did_you_mean
from pipelines.schema.base import Use
from pipelines.schema.data import FileData
from pipelines.schema.roles import KeyPath, LocalFile, blocks, marked, plain
from pipelines.workflow.encoding_checks import ROWS, check_encoding
from pipelines.workflow.loading import LoadedWorkflow
from pipelines.workflow.tokenizers import tokenizer_at_hand, tokenizer_origin


@dataclasses.dataclass(frozen=True)
class _Looked:
    """What reading a file as its stage does brought: problems, notes, and the first examples of so many."""

    problems: list[str]
    notes: list[str]
    first: list
    total: int


def check_data(loaded: LoadedWorkflow, with_tables: bool = False) -> list[str]:
    """Read every row of the local files that the workflow names, and encode the first ones of each, as its stages do.

    Args:
        with_tables: True reads parquet, CSV and arrow too, for which `datasets` is imported. Sets on the hub are always
            left to the run.

    Returns:
        What is worth saying: rows that will be set aside or read in part, a line for each data specification that has
        any; what was not read.

    Raises:
        ConfigError: a part is chosen of what has no parts; rows are to be encoded with a model without a tokenizer.
        DataError: all that is missing or cannot be read, a line each.
    """
    problems: list[str] = []
    notes: list[str] = []
    unread: list[str] = []
    looked_at: dict[tuple[str, Use], _Looked] = {}
    tokenizer = functools.cache(functools.partial(tokenizer_at_hand, loaded.workflow))
    for name, config in loaded.workflow.stages.items():
        for path, block in blocks(config):
            if not isinstance(block, FileData):
                continue
            where: KeyPath = ("stages", name, *path)
            _check_parts(loaded, where, block)
            missing = _file_problems(loaded, where, block)
            problems += missing
            if missing:
                continue
            if not with_tables and needs_datasets(block, loaded.base_folder):
                unread.append(block.path)
                continue
            for use in config.reads():
                # Stages that read the same rows alike are all told of by the first of them.
                rows = (block.model_dump_json(), use)
                if rows not in looked_at:
                    looked_at[rows] = _look_at(loaded, where, block, use)
                    problems += looked_at[rows].problems
                    notes += looked_at[rows].notes
                problems += _encoding_problems(loaded, name, use, looked_at[rows], tokenizer, bool(block.disjoint_from))
        for found in marked(type(config), plain(config)):
            must_exist = isinstance(found.mark, LocalFile) and found.mark.must_exist
            if must_exist and found.value is not None and find_path(found.value, loaded.base_folder) is None:
                problems.append(f"{loaded.where(('stages', name, *found.path))}: no file {found.value!r}")
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
    if unread:
        notes.append(f"left to `run`, as only JSON lines are read here: {', '.join(dict.fromkeys(unread))}")
    return list(dict.fromkeys(notes))


def _encoding_problems(
    loaded: LoadedWorkflow, stage: str, use: Use, looked: _Looked, tokenizer: Callable, is_disjoint: bool
) -> list[str]:
    """What the stage's encoder says against the first rows."""
    encoding = loaded.workflow.stages[stage].encoding()
    if encoding is None or not looked.first:
        return []
    count = min(looked.total, encoding.most_rows or looked.total)
    first = looked.first[: encoding.most_rows]
    origin = tokenizer_origin(loaded.workflow, stage, loaded.base_folder)
    try:
        # Which rows `disjoint_from` leaves is known when the stages before have run.
        check_encoding(use, tokenizer(origin), first, encoding, len(first) == count and not is_disjoint)
    except DataError as error:
        return [str(error)]
    except ConfigError as error:
        raise ConfigError(f"{loaded.where(('stages', stage))}: {error}") from error
    return []


def _check_parts(loaded: LoadedWorkflow, where: KeyPath, data: FileData) -> None:
    path = find_path(data.path, loaded.base_folder)
    if path is None or not path.is_file():
        return
    for setting, value in (("split", data.split), ("config", data.config)):
        if value is not None:
            key = ".".join(map(str, (*where, setting)))
            raise ConfigError(
                f"{loaded.where((*where, setting))}: {setting!r} chooses a part of a folder or hub data set, and "
                f"{data.path} is a file. Remove it, or: --set {key}=null"
            )


def _look_at(loaded: LoadedWorkflow, where: KeyPath, data: FileData, use: Use) -> _Looked:
    """What keeps a local file from being read, what is worth saying of it, and its first rows."""
    if find_path(data.path, loaded.base_folder) is None:
        return _Looked([], [], [], 0)
    rejects = Rejects("lenient")
    try:
        examples = load_examples(data, use, loaded.base_folder, rejects=rejects)
    except DataError as error:
        return _Looked([str(error)], [], [], 0)
    key = ".".join(map(str, where))
    notes = [f"{key}: {origin}: {notice}" for notice, origin in rejects.notices.items()]
    if not rejects.count:
        return _Looked([], notes, examples[:ROWS], len(examples))
    first = f"{rejects.rows[0]['origin']}: {rejects.rows[0]['reason']}"
    if data.on_bad_row == "lenient":
        count = f"{rejects.count} of {rejects.count + len(examples)} rows are set aside"
        return _Looked([], [f"{key}: {count}, the first {first}", *notes], examples[:ROWS], len(examples))
    more = f" ({rejects.count} rows are bad)" if rejects.count > 1 else ""
    return _Looked([f"{first}{more} Mend them, or set them aside: --set {key}.on_bad_row=lenient"], [], [], 0)


def _file_problems(loaded: LoadedWorkflow, where: KeyPath, data: FileData) -> list[str]:
    path = find_path(data.path, loaded.base_folder)
    if path is None:
        if data.on_hub is not None and "/" in data.on_hub[0]:
            return []
        place, base = loaded.where((*where, "path")), loaded.base_folder
        return [
            f"{place}: no data file {data.path!r}; expected a file or folder (relative paths start from {base}), or a "
            "hub id"
        ]
    try:
        need_file(path)
    except OSError as error:
        return [f"{path}:1: cannot be read: {error.strerror}"]
    if path.suffix != ".jsonl" or data.format != "auto":
        return []
    try:
        row = next(read_jsonl(path), None)
    except DataError as error:
        return [str(error)] if data.on_bad_row == "strict" else []
    if row is None:
        return [f"{path}:1: no rows; expected a JSON object a line"]
    problems = []
    for setting, column in data.columns.items():
        if column not in row.values:
            known = ", ".join(row.values) or "none"
            place = loaded.where((*where, setting))
            problems.append(
                f"{place}: {row.origin}: no column {column!r}.{did_you_mean(column, row.values)} Columns there: {known}"
            )
    return problems
