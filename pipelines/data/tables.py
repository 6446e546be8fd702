"""Rows of tables and data sets, through `datasets`: it takes a second to import, so `sources.py` imports this file
where it needs it."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from gemma_keras.checkpoints.hub import COMMIT
from gemma_keras.files import need_file
from pipelines.data.jsonl import Row
from pipelines.host.errors import DataError


def table_rows(builder: str, files: list[Path]) -> Iterator[Row]:
    """Rows of files that a builder of `datasets` reads: "parquet", "csv" or "arrow"."""
    for file in files:
        _need_file(file)
        load = functools.partial(datasets.load_dataset, builder, data_files=str(file), split="train")
        table = _guarded(str(file), load)
        yield from _numbered(table, str(file))


def _need_file(path: Path) -> None:
    try:
        need_file(path)
    except OSError as error:
        raise DataError(f"{path}:1: cannot be read: {error.strerror}. Expected a table.") from None


def saved_rows(folder: Path, name: str | None, start: int, stop: int | None) -> Iterator[Row]:
    """Rows of what `datasets` saved to disk: a split, and a part of it."""
    for file in folder.rglob("*"):
        _need_file(file)
    saved = _guarded(str(folder), lambda: datasets.load_from_disk(str(folder)))
    return islice(_numbered(_one_split(saved, name, str(folder)), str(folder)), start, stop)


def hub_rows(repository: str, revision: str | None, config: str | None, split: str | None) -> Iterator[Row]:
    """Rows of a data set on the hub.

    Args:
        repository, revision: see `FileData.on_hub`. config, split: as of `FileData`.

    Raises:
        DataError: it cannot be loaded, or only as it was at another commit than the one asked for.
    """

    def load() -> Any:
        try:
            return datasets.load_dataset(repository, config, split=split, revision=revision)
        except ValueError as error:
            # Sets without declared configurations, such as Anthropic/hh-rlhf, keep their parts in folders.
            if config is None or "BuilderConfig" not in str(error):
                raise
            return datasets.load_dataset(repository, data_dir=config, split=split, revision=revision)

    table = _one_split(_guarded(repository, load), None, repository)
    _check_commit(table, repository, revision)
    return _numbered(table, f"{repository}/{split or 'train'}")


def _check_commit(table: datasets.Dataset, repository: str, revision: str | None) -> None:
    """Without a network `datasets` takes what it read last, whatever revision is asked for, and always a folder of the
    name; its files lie in a folder named after the commit."""
    places = [Path(file["filename"]) for file in table.cache_files]
    if revision is not None and COMMIT.fullmatch(revision) and not all(revision in place.parts for place in places):
        raise DataError(
            f"{repository}:1: cannot be loaded: what `datasets` found is not of commit {revision}. Its cache holds "
            "another one and the hub cannot be reached, or a folder here has this name. Run where there is a network."
        )


def _one_split(data: Any, name: str | None, place: str) -> Any:
    if not isinstance(data, datasets.DatasetDict):
        return data
    name = name or ("train" if "train" in data or len(data) != 1 else next(iter(data)))
    if name not in data:
        raise DataError(
            f"{place}:1: no split {name!r}. It has {', '.join(data)}; set `split` in the data specification."
        )
    return data[name]


def _numbered(table: Iterable[Mapping[str, Any]], place: str) -> Iterator[Row]:
    for number, values in enumerate(table, 1):
        yield Row(dict(values), f"{place}:{number}")


def _guarded(place: str, load: Callable[[], Any]) -> Any:
    """Calls into `datasets`, whose errors are of many classes; all mean that the data cannot be had."""
    try:
        return load()
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{place}:1: cannot be loaded: {reason}. Check the name, `config`, `split` and the network."
        ) from error
