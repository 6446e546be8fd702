"""What can be said about a workflow's data before anything runs: files exist, and the first row has the named columns."""

import re

from pipelines.configs import Columns, FileData, PreferenceCollection
from pipelines.data.jsonl import read_jsonl
from pipelines.errors import ConfigError, DataError
from pipelines.paths import find_path
from pipelines.schema_errors import did_you_mean
from pipelines.workflow import LoadedWorkflow
from pipelines.yaml_reader import KeyPath

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
        data = getattr(config, "data", None)
        if isinstance(data, FileData):
            _check_parts(loaded, name, data)
            problems += _file_problems(loaded, ("stages", name, "data"), data)
        ratings = config.ratings if isinstance(config, PreferenceCollection) else None
        if ratings is not None and find_path(ratings, loaded.base_folder) is None:
            problems.append(f"{loaded.where(('stages', name, 'ratings'))}: no file {ratings!r}")
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))


def _check_parts(loaded: LoadedWorkflow, stage: str, data: FileData) -> None:
    path = find_path(data.path, loaded.base_folder)
    if path is None or not path.is_file():
        return
    for setting in ("split", "config"):
        if getattr(data, setting) is not None:
            key = f"stages.{stage}.data.{setting}"
            raise ConfigError(
                f"{loaded.where(('stages', stage, 'data', setting))}: {setting!r} chooses a part of a folder or hub data set, and "
                f"{data.path} is a file. Remove it, or: --set {key}=null"
            )


def _file_problems(loaded: LoadedWorkflow, where: KeyPath, data: FileData) -> list[str]:
    path = find_path(data.path, loaded.base_folder)
    if path is None:
        if _HUB_ID.fullmatch(data.path) and not _FILE_NAME.search(data.path) and not data.path.startswith("."):
            return []
        place, base = loaded.where((*where, "path")), loaded.base_folder
        return [f"{place}: no data file {data.path!r}; expected a file or folder (relative paths start from {base}), or a hub id"]
    if path.suffix != ".jsonl" or data.format != "auto":
        return []
    try:
        row = next(read_jsonl(path), None)
    except DataError as error:
        return [str(error)] if data.on_bad_row == "strict" else []
    if row is None:
        return [f"{path}:1: no rows; expected a JSON object a line"]
    problems = []
    for setting in Columns:
        column = getattr(data, setting)
        if column is not None and column not in row.values:
            known = ", ".join(row.values) or "none"
            place = loaded.where((*where, setting))
            problems.append(f"{place}: {row.origin}: no column {column!r}.{did_you_mean(column, row.values)} Columns there: {known}")
    return problems
