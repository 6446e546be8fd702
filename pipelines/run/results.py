"""Finished stages on disk: what their files must be, and where earlier results of a stage are kept.

The last file that a stage writes, `files.json`, has the size and the SHA-256 of each of the others. A folder that holds
it is whole, so that what is found under a temporary name is finished too. A result that another one takes the place of
moves to `RUN/kept/NAME-KEY8/`, from where the same key takes it back. The last state of a stage that a longer one can
go on from is kept in `RUN/kept/NAME-KEY8.state/`.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma_keras.files import atomic_folder, place_folder
from pipelines.host.errors import DataError, WorkflowError
from pipelines.host.files import file_digest, read_json, write_json
from pipelines.host.run_folder import STAGES, folders_with_stages
from pipelines.host.states import FAILURES_FILE, LOGS, SNAPSHOTS, STATE, drop_states, how_far, state_folders

FILES_FILE = "files.json"
KEPT_FOLDER = "kept"


def record_files(folder: Path) -> None:
    """Write `files.json` of a stage that is finished, with all but what is removed with its state."""
    found = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in _files(folder)
    }
    write_json(folder / FILES_FILE, found)


def damage(folder: Path, with_digests: bool = False) -> str | None:
    """The first file of a finished stage that is not as it was written, in words; None where all are.

    Args:
        with_digests: read every file, in place of asking for its size.
    """
    try:
        expected = read_json(folder / FILES_FILE)
        sizes = {name: int(about["bytes"]) for name, about in expected.items()}
        digests = {name: str(about["sha256"]) for name, about in expected.items()}
    except DataError:
        return f"{FILES_FILE} is missing or no JSON"
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return f"{FILES_FILE} is no list of files"
    for name, size in sizes.items():
        path = folder / name
        if not os.path.isfile(path):  # unlike `Path.is_file` also of a name that no file can have
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
        if with_digests and file_digest(path) != digests[name]:
            return f"{name} has other contents than were written"
    return None


@contextlib.contextmanager
def naming_damage(run_folder: Path) -> Iterator[None]:
    """Within, finished stages are read for what they say. An error that comes of one whose files are not as they were
    written is told as that.

    Raises:
        DataError: names the file. Any other: a bug, as it was raised.
    """
    try:
        yield
    except WorkflowError:
        raise
    except Exception as error:
        for stages in folders_with_stages(run_folder):
            for folder in sorted((stages / STAGES).glob("[!.]*")):
                found = damage(folder, with_digests=True)
                if found is not None:
                    raise DataError(f"{folder}: {found}; `run --verify` makes such stages again") from error
        raise


def read_about(folder: Path) -> dict[str, Any]:
    """The `stage.json` of a stage; {} where it is missing or no object."""
    try:
        about = read_json(folder / "stage.json")
    except DataError:
        return {}
    return about if isinstance(about, dict) else {}


def kept_result(run_folder: Path, name: str, key: str) -> Path | None:
    """An earlier result of a stage under a key, where it is kept and whole."""
    folder = run_folder / KEPT_FOLDER / f"{name}-{key[:8]}"
    return folder if read_about(folder).get("key") == key and damage(folder) is None else None


def kept_state(run_folder: Path, name: str, state_key: str) -> Path | None:
    """Where the last state of a finished stage is kept, as the folder of an unfinished one; None where it is not."""
    folder = run_folder / KEPT_FOLDER / f"{name}-{state_key[:8]}.state"
    done = how_far(folder)
    return folder if done is not None and done.key == state_key else None


def put_in_place(run_folder: Path, finished: Path, target: Path) -> None:
    """Give a finished folder its name; what stood there is kept, and so is the last state where a longer stage could go
    on from it. A kill in between leaves what `adopt` finishes."""
    options = read_about(finished).get("state")
    if isinstance(options, dict) and options.get("last"):
        _keep_state(run_folder, finished, target.name)
    drop_states(finished)
    if target.exists():
        _keep(run_folder, target)
    place_folder(finished, target)


def adopt(run_folder: Path) -> None:
    """Put finished stages in place whose runner was killed before it could."""
    for folder in folders_with_stages(run_folder):
        for partial in (folder / STAGES).glob(".*.partial"):
            if damage(partial) is None:
                name = partial.name.removeprefix(".").removesuffix(".partial")
                put_in_place(run_folder, partial, partial.with_name(name))


def share(cache: Path, folder: Path, key: str) -> None:
    """Put a finished stage into a folder that runs share, by hard links where the file system has them."""
    place = cache / key
    if damage(place, with_digests=True) is not None:
        shutil.rmtree(place, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_folder(place) as temporary:
            _link_tree(folder, temporary)


def take_shared(cache: Path, key: str, partial: Path) -> bool:
    """Fill the folder of an unfinished stage from the shared one. False, and nothing is touched, where the cache has no
    whole result under the key."""
    place = cache / key
    if read_about(place).get("key") != key or damage(place, with_digests=True) is not None:
        return False
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _link_tree(place, partial)
    return True


def kept_results(run_folder: Path) -> tuple[int, int]:
    """How many earlier results are kept, and their bytes."""
    folders = [path for path in (run_folder / KEPT_FOLDER).glob("*") if path.is_dir()]
    return len(folders), sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def clean(run_folder: Path) -> None:
    """Remove the earlier results."""
    shutil.rmtree(run_folder / KEPT_FOLDER, ignore_errors=True)


def _keep_state(run_folder: Path, finished: Path, name: str) -> None:
    done = how_far(finished)
    if done is None:  # states are turned off
        return
    place = run_folder / KEPT_FOLDER / f"{name}-{done.key[:8]}.state"
    place.parent.mkdir(exist_ok=True)
    with atomic_folder(place, stale=("*",)) as temporary:
        _link(state_folders(finished)[0], temporary / STATE / str(done.step))
        _link(finished / SNAPSHOTS, temporary / SNAPSHOTS)
        for file in ("stage.json", *LOGS):  # copies: the logs are cut and go on
            if (finished / file).is_file():
                shutil.copy2(finished / file, temporary / file)


def _keep(run_folder: Path, target: Path) -> None:
    key = read_about(target).get("key")
    if not isinstance(key, str) or damage(target) is not None:
        shutil.rmtree(target)  # nothing that could be taken back
        return
    place = run_folder / KEPT_FOLDER / f"{target.name}-{key[:8]}"
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    target.rename(place)


def _link_tree(source: Path, target: Path) -> None:
    """`files.json` last: without it a folder is not whole."""
    for path in [*_files(source), source / FILES_FILE]:
        _link_file(path, target / path.relative_to(source))


def _link(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            _link_file(path, target / path.relative_to(source))


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _files(folder: Path) -> Iterator[Path]:
    others = {FILES_FILE, STATE, FAILURES_FILE}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).parts[0] not in others:
            yield path
