"""What can be said about a workflow's data before anything runs: files exist, and every row of them can be read as its
stage will read it. A bad row must not show after the stages before it have trained for hours."""

import re

from pipelines.data.examples import load_examples
from pipelines.data.jsonl import read_jsonl
from pipelines.data.rejects import Rejects
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import find_path
from pipelines.host.spelling import did_you_mean
from pipelines.schema.base import Use
from pipelines.schema.data import FileData
from pipelines.schema.roles import KeyPath, LocalFile, blocks, marked, plain
from pipelines.workflow.loading import LoadedWorkflow

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_NAME = re.compile(r"\.(jsonl?|parquet|csv|tsv|txt|gz|zst|arrow)$")


def check_data(loaded: LoadedWorkflow) -> list[str]:
    """Read every row of the local files that the workflow names; hub data sets are left to the run.

    Returns:
        What is worth saying: rows that will be set aside, a line for each data specification that has any.

    Raises:
        ConfigError: a part is chosen of what has no parts.
        DataError: all that is missing or cannot be read, a line each.
    """
    problems: list[str] = []
    notes: list[str] = []
    looked_at: set[tuple[str, Use]] = set()
    for name, config in loaded.workflow.stages.items():
        for path, block in blocks(config):
            if not isinstance(block, FileData):
                continue
            where: KeyPath = ("stages", name, *path)
            _check_parts(loaded, where, block)
            missing = _file_problems(loaded, where, block)
            problems += missing
            for use in config.reads():
                # Stages that read the same rows alike are all told of by the first of them.
                rows = (block.model_dump_json(), use)
                if missing or rows in looked_at:
                    continue
                looked_at.add(rows)
                bad, set_aside = _row_problems(loaded, where, block, use)
                problems += bad
                notes += set_aside
        for found in marked(type(config), plain(config)):
            must_exist = isinstance(found.mark, LocalFile) and found.mark.must_exist
            if must_exist and found.value is not None and find_path(found.value, loaded.base_folder) is None:
                problems.append(f"{loaded.where(('stages', name, *found.path))}: no file {found.value!r}")
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
    return list(dict.fromkeys(notes))


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


def _row_problems(loaded: LoadedWorkflow, where: KeyPath, data: FileData, use: Use) -> tuple[list[str], list[str]]:
    """What keeps a local file from being read, and what is worth saying of it."""
    if find_path(data.path, loaded.base_folder) is None:
        return [], []
    rejects = Rejects("lenient")
    try:
        examples = load_examples(data, use, loaded.base_folder, rejects=rejects)
    except DataError as error:
        return [str(error)], []
    if not rejects.count:
        return [], []
    first = f"{rejects.rows[0]['origin']}: {rejects.rows[0]['reason']}"
    if data.on_bad_row == "lenient":
        count = f"{rejects.count} of {rejects.count + len(examples)} rows are set aside"
        return [], [f"{'.'.join(map(str, where))}: {count}, the first {first}"]
    more = f" ({rejects.count} rows are bad)" if rejects.count > 1 else ""
    setting = ".".join(map(str, (*where, "on_bad_row")))
    return [f"{first}{more} Mend them, or set them aside: --set {setting}=lenient"], []


def _file_problems(loaded: LoadedWorkflow, where: KeyPath, data: FileData) -> list[str]:
    path = find_path(data.path, loaded.base_folder)
    if path is None:
        if _HUB_ID.fullmatch(data.path) and not _FILE_NAME.search(data.path) and not data.path.startswith("."):
            return []
        place, base = loaded.where((*where, "path")), loaded.base_folder
        return [
            f"{place}: no data file {data.path!r}; expected a file or folder (relative paths start from {base}), or a "
            "hub id"
        ]
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
