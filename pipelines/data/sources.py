"""Where rows come from: JSON lines, the built-in task, a stage's folder, and through `datasets` parquet, folders and
the hub."""

import re
import types
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from gemma_keras.random import generator
from pipelines.data.jsonl import Row, read_jsonl
from pipelines.data.rejects import Rejects
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import find_path
from pipelines.schema.data import FileData, TaskData
from pipelines.tasks import kept, task

LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
PREFERENCES_FILE = "preferences.jsonl"
DEMONSTRATIONS_FILE = "demonstrations.jsonl"
ROWS_FILE = "rows.jsonl"
_REMEDIES = {
    (".xlsx", ".xls", ".ods"): " Save the sheet as .csv.",
    (".gz", ".zst", ".bz2", ".xz", ".zip"): " Unpack it.",
    (".tsv", ".txt", ".yaml", ".yml", ".md"): ' Write a JSON object a line, such as {"text": "..."}.',
}
_SPLIT = re.compile(r"([\w.-]+)(?:\[(\d*):(\d*)\])?")


def load_rows(
    spec: FileData | TaskData | str,
    base_folder: Path,
    inputs: Mapping[str, Path] | None = None,
    seed: int = 0,
    rejects: Rejects | None = None,
) -> list[Row]:
    """All rows that a `data` specification names, see `iterate_rows`.

    Raises:
        DataError: there are none, too.
    """
    rejects = rejects or Rejects(spec.on_bad_row if isinstance(spec, FileData) else "strict")
    rows = list(iterate_rows(spec, base_folder, inputs, seed, rejects))
    if not rows and isinstance(spec, FileData):
        raise DataError(f"{spec.path}:1: no rows could be read ({rejects.count} bad ones). Expected at least one row.")
    return rows


def iterate_rows(
    spec: FileData | TaskData | str,
    base_folder: Path,
    inputs: Mapping[str, Path] | None = None,
    seed: int = 0,
    rejects: Rejects | None = None,
) -> Iterator[Row]:
    """The rows that a `data` specification names, one after the other; only `shuffle` needs all of them at once.

    Args:
        spec: a file, a part of a task, or the name of a stage that left rows.
        base_folder: folder that relative paths start from, that of the YAML file.
        inputs: finished stage folders by name.
        seed: of the built-in task's draws.
        rejects: what to do with bad lines; default as `spec.on_bad_row` says.

    Of a file's rows `shuffle` is applied first, then `rows`, then `limit`.

    Yields:
        Row with `values` and `origin`. A task's row has `prompt`, `completion`, `answer`, `kind`, `must_refuse`,
        `text` for pretraining, and the TaskItem itself as `item`.

    Raises:
        DataError: missing or unreadable data, or in strict mode a bad line.
        ConfigError: the specification contradicts itself.
    """
    if isinstance(spec, str):
        yield from _stage_rows(spec, inputs or {}, rejects or Rejects())
    elif isinstance(spec, TaskData):
        yield from _task_rows(spec, seed)
    else:
        yield from _chosen_rows(_file_rows(spec, base_folder, rejects or Rejects(spec.on_bad_row)), spec)


def needs_datasets(spec: FileData, base_folder: Path) -> bool:
    """True where rows come through `datasets`, which takes a second to import: parquet, CSV and arrow, folders with
    them, saved sets and the hub."""
    path = find_path(spec.path, base_folder)
    if path is None or not path.is_dir():
        return path is None or path.suffix in TABLE_SUFFIXES
    try:
        return _is_saved(path) or _folder_files(path, spec)[0] in TABLE_SUFFIXES
    except DataError:
        return False  # there is nothing to read, by whatever


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file()


def _chosen_rows(rows: Iterator[Row], spec: FileData) -> Iterator[Row]:
    """What `shuffle`, `rows` and `limit` leave, in this order. Nothing beyond the limit is read, where rows are taken
    as they come."""
    if spec.shuffle is not None:
        found = list(rows)
        rows = iter([found[i] for i in generator(spec.shuffle, "shuffle").permutation(len(found))])
    yield from islice(_part(rows, spec) if spec.rows is not None else rows, spec.limit)


def _part(rows: Iterator[Row], spec: FileData) -> Iterator[Row]:
    """Rows [a, b) of `spec.rows`; all are counted, as an end behind the last one is a mistake."""
    start, stop = spec.rows or (0, 0)
    count = 0
    for count, row in enumerate(rows, 1):
        if start < count <= stop:
            yield row
        if count == stop:
            return
    if count:
        raise DataError(f"{spec.path}:1: `rows: [{start}, {stop}]` ends behind its {count} rows.")


def _stage_rows(name: str, inputs: Mapping[str, Path], rejects: Rejects) -> Iterator[Row]:
    if name not in inputs:
        raise ConfigError(f"data: {name!r} is no earlier stage. Stages at hand: {', '.join(sorted(inputs)) or 'none'}.")
    for file in (PREFERENCES_FILE, DEMONSTRATIONS_FILE, ROWS_FILE):
        if (inputs[name] / file).is_file():
            return read_jsonl(inputs[name] / file, rejects)
    raise DataError(
        f"{inputs[name] / PREFERENCES_FILE}:1: missing. Expected a preference_collection stage that is finished; "
        f"{name!r} left no preferences, and no {DEMONSTRATIONS_FILE} or {ROWS_FILE}."
    )


def _task_rows(spec: TaskData, seed: int) -> list[Row]:
    built_in = task(spec.task)
    place = f"{spec.task}/{spec.split}"
    if spec.split == "pretraining":
        texts = kept.texts(built_in, spec.size, seed)
        return [Row({"text": text}, f"{place}:{number}") for number, text in enumerate(texts, 1)]
    return [
        Row(
            {
                "prompt": item.prompt,
                "completion": item.demonstration,
                "answer": item.answer,
                "kind": item.kind,
                "must_refuse": item.must_refuse,
                "item": item,
            },
            f"{place}:{number}",
        )
        for number, item in enumerate(kept.prompts(built_in, spec.split, spec.size, seed), 1)
    ]


def _file_rows(spec: FileData, base_folder: Path, rejects: Rejects) -> Iterator[Row]:
    path = find_path(spec.path, base_folder)
    if path is None:
        if spec.on_hub is None:
            raise DataError(f"{spec.path}:1: no such file or folder. Paths are relative to the YAML file's folder.")
        return _tables().hub_rows(*spec.on_hub, spec.config, spec.split)
    if path.is_dir():
        return _folder_rows(path, spec, rejects)
    if spec.split is not None or spec.config is not None:
        raise ConfigError(
            f"data: `split` and `config` choose parts of a folder or a hub data set, and {spec.path} is a file. Remove "
            "them."
        )
    if path.suffix in LINE_SUFFIXES:
        return read_jsonl(path, rejects)
    if path.suffix in TABLE_SUFFIXES:
        return _tables().table_rows(TABLE_SUFFIXES[path.suffix], [path])
    raise DataError(f"{path}:1: {_foreign_file(path.suffix)}")


def _foreign_file(suffix: str) -> str:
    kind = f"unknown kind of file {suffix!r}" if suffix else "a file whose name does not say what it is"
    remedy = next((text for suffixes, text in _REMEDIES.items() if suffix.lower() in suffixes), "")
    return f"{kind}. Expected JSON lines ({', '.join(LINE_SUFFIXES)}) or a table ({', '.join(TABLE_SUFFIXES)}).{remedy}"


def _folder_rows(folder: Path, spec: FileData, rejects: Rejects) -> Iterator[Row]:
    """A folder with JSON lines or tables, or one that `datasets` saved; a split is a file's or sub-folder's name or its
    beginning."""
    if _is_saved(folder):
        return _tables().saved_rows(folder, *_parse_split(spec.split))
    suffix, files = _folder_files(folder, spec)
    rows: Iterator[Row]
    if suffix in TABLE_SUFFIXES:
        rows = _tables().table_rows(TABLE_SUFFIXES[suffix], files)
    else:
        rows = (row for file in files for row in read_jsonl(file, rejects))
    return islice(rows, *_parse_split(spec.split)[1:])


def _folder_files(folder: Path, spec: FileData) -> tuple[str, list[Path]]:
    """The files of a folder that are read, in order, and a suffix that stands for their kind."""
    folder = folder / spec.config if spec.config else folder
    name = _parse_split(spec.split)[0]
    for suffixes in (LINE_SUFFIXES[:2], *((suffix,) for suffix in TABLE_SUFFIXES)):
        files = sorted(file for file in folder.rglob("*") if file.suffix in suffixes and file.is_file())
        if name is not None:
            files = [file for file in files if any(part.startswith(name) for part in file.relative_to(folder).parts)]
        if files:
            return suffixes[0], files
    wanted = f" whose name starts with {name!r}" if name else ""
    raise DataError(
        f"{folder}:1: no .jsonl, .ndjson, .parquet, .csv or .arrow file{wanted}. Name the file, or another `split`."
    )


def _parse_split(split: str | None) -> tuple[str | None, int, int | None]:
    if split is None:
        return None, 0, None
    match = _SPLIT.fullmatch(split)
    if match is None:
        raise ConfigError(f"data: expected a split such as train or train[:1000], got {split!r}.")
    name, start, stop = match.groups()
    return name, int(start or 0), int(stop) if stop else None


def _tables() -> types.ModuleType:
    from pipelines.data import tables

    return tables
