"""What can be said about a workflow's data before anything runs: files exist, and the first row has the named
columns."""

import re

from pipelines.data.jsonl import read_jsonl
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import find_path
from pipelines.host.spelling import did_you_mean
from pipelines.schema.data import FileData
from pipelines.schema.roles import KeyPath, LocalFile, blocks, marked, plain
from pipelines.workflow.loading import LoadedWorkflow

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_NAME = re.compile(r"\.(jsonl?|parquet|csv|tsv|txt|gz|zst|arrow)$")


def check_data(loaded: LoadedWorkflow) -> None:
    """Look at every local file that the workflow names; hub data sets and parquet are left to the run.

    Raises:
        ConfigError: a part is chosen of what has no parts.
        DataError: all that is missing, a line each.
    """
    problems: list[str] = []
    for name, config in loaded.workflow.stages.items():
        for path, block in blocks(config):
            if isinstance(block, FileData):
                _check_parts(loaded, ("stages", name, *path), block)
                problems += _file_problems(loaded, ("stages", name, *path), block)
        for found in marked(type(config), plain(config)):
            must_exist = isinstance(found.mark, LocalFile) and found.mark.must_exist
            if must_exist and found.value is not None and find_path(found.value, loaded.base_folder) is None:
                problems.append(f"{loaded.where(('stages', name, *found.path))}: no file {found.value!r}")
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))


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
