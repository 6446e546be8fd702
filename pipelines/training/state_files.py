"""One state on disk: arrays by name, on the host or read from a device as they are written, and a manifest with digests
of all."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints.safetensors_file import SafetensorsWriter, read_header, read_tensor
from pipelines.host.files import file_digest
from pipelines.host.states import read_manifest, write_manifest

ARRAYS_FILE = "arrays.safetensors"


@dataclasses.dataclass(frozen=True)
class Source:
    """An array that is on a device.

    Args:
        shape, dtype: of it. read: gives a copy on the host, which nothing else writes to.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a state holds.

    Args:
        arrays: by name, each a `Source` or on the host.
        record: plain JSON; floats come back with all their digits.
    """

    arrays: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def under(self, name: str) -> dict[str, Any]:
        """The arrays with a name before theirs."""
        return {f"{name}/{one}": array for one, array in self.arrays.items()}

    def part(self, name: str) -> "Snapshot":
        """What was kept `under` a name, and of the record what stands there."""
        prefix = f"{name}/"
        arrays = {one.removeprefix(prefix): array for one, array in self.arrays.items() if one.startswith(prefix)}
        return Snapshot(arrays, self.record.get(name, {}))


def flat_parts(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of work in parts by one name each, as a state has them; `by_part` undoes it."""
    return {f"{part}/{name}": array for part, values in parts.items() for name, array in values.items()}


def by_part(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Part → its arrays by their own names."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        part, _, own = name.rpartition("/")
        found.setdefault(part, {})[own] = array
    return found


def write_state(folder: Path, arrays: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write the arrays of a state, and then its manifest with their digest.

    Args:
        folder: empty. arrays: by name, each a `Source` or on the host.
    """
    # Large items first, so that every array begins at a multiple of its item.
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    shapes = {name: tuple(arrays[name].shape) for name in order}
    dtypes = {name: np.dtype(arrays[name].dtype) for name in order}
    with SafetensorsWriter(folder / ARRAYS_FILE, shapes, "float32", dtypes=dtypes) as writer:
        for name in order:
            array = arrays[name]
            writer.write(name, array.read() if isinstance(array, Source) else array)
    path = folder / ARRAYS_FILE
    files = {ARRAYS_FILE: {"bytes": path.stat().st_size, "sha256": file_digest(path)}}
    write_manifest(folder, {**manifest, "files": files})


def read_state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and manifest of a state.

    Raises:
        ValueError, KeyError, TypeError, CheckpointError: it is damaged.
    """
    manifest = read_manifest(folder)
    for name, about in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != about["bytes"]:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, expected {about['bytes']}")
        if file_digest(path) != about["sha256"]:
            raise ValueError(f"{name} has other contents than were written")
    entries = read_header(folder / ARRAYS_FILE)
    return {name: read_tensor(entry) for name, entry in entries.items()}, manifest
