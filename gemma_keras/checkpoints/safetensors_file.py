"""Safetensors files: checked before anything is allocated, read by seeking, written tensor by tensor.

The header is parsed here and not by the `safetensors` library for two reasons: every bound is checked against the size
of the file before memory is asked for, with an error that names file and tensor; and reading by seek keeps the file's
pages out of the process (a memory map counts as resident memory, a second copy of the model while loading). Writing
needs the shapes beforehand and one tensor in memory at a time.

Source: the format at https://github.com/huggingface/safetensors#format
"""

import contextlib
import dataclasses
import json
import math
import os
import struct
import types
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.files import need_file, sync_folder, temporary_beside
from gemma_keras.json_values import parse, shown

MAX_HEADER_BYTES = 100_000_000
_BLOCK_BYTES = 1 << 26
_DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "I64": np.dtype(np.int64), "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U64": np.dtype(np.uint64), "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16), "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
FLOAT_CODES = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies.

    Args:
        name: the tensor's name in the file. file: the file.
        code: safetensors' name of the dtype, e.g. "BF16".
        shape: dimensions, outermost first.
        start: first byte, from the beginning of the file. size: bytes.
    """

    name: str
    file: Path
    code: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def dtype(self) -> np.dtype:
        """The numpy dtype."""
        return _DTYPES[self.code]


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Every tensor's entry, in the order of their bytes, after all bounds were checked.

    Args:
        file: a safetensors file.

    Returns:
        tensor name → entry.

    Raises:
        CheckpointError: the file is missing, cut short, or its header is malformed (lengths, offsets, overlaps, holes,
            dtypes, shapes).
    """
    table, first, total = _header(file)
    table.pop("__metadata__", None)
    entries = [_entry(file, name, value, first, total) for name, value in table.items()]
    entries.sort(key=lambda entry: (entry.start, entry.size))
    _check_layout(file, entries, first, total)
    return {entry.name: entry for entry in entries}


def read_metadata(file: Path) -> dict[str, str]:
    """The strings that a file's header keeps beside its tensors.

    Raises:
        CheckpointError: as `read_header`.
    """
    metadata = _header(file)[0].get("__metadata__", {})
    return (
        {key: value for key, value in metadata.items() if isinstance(value, str)} if isinstance(metadata, dict) else {}
    )


def _header(file: Path) -> tuple[dict, int, int]:
    """The header's table, where the data begin, and the bytes of the file."""
    try:
        need_file(file)
        total = file.stat().st_size
        with open(file, "rb") as stream:
            prefix = stream.read(8)
            if len(prefix) < 8:
                raise CheckpointError(
                    f"{file}: not a safetensors file: it has {total} bytes, the header alone needs 8. Download or save "
                    "it again."
                )
            length = struct.unpack("<Q", prefix)[0]
            if length > min(total - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{file}: the safetensors header claims {length} bytes, the file has {total} (limit "
                    f"{MAX_HEADER_BYTES}). The file is cut short or is no safetensors file: download or save it again."
                )
            text = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}.") from error
    if text[:1] != b"{":
        raise CheckpointError(f"{file}: not a safetensors file: its header does not begin with an object.")
    try:
        table = parse(text)
    except ValueError as error:
        raise CheckpointError(f"{file}: the safetensors header is {error}.") from error
    return table, 8 + length, total


def _entry(file: Path, name: str, value, first: int, total: int) -> TensorEntry:
    where = f"{file}: tensor {name[:200]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{where}: expected the keys dtype, shape, data_offsets in the header. Received: {shown(value)}"
        )
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise CheckpointError(f"{where}: unknown dtype. Expected one of {', '.join(_DTYPES)}. Received: {shown(code)}")
    if not _are_sizes(shape) or len(shape) > 8:
        raise CheckpointError(f"{where}: the shape must be at most 8 sizes >= 0. Received: {shown(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where}: data_offsets must be two numbers, begin <= end. Received: {shown(offsets)}")
    begin, end = offsets
    if first + end > total:
        raise CheckpointError(
            f"{where}: its data ends at byte {first + end}, the file has {total}. The file is cut short: download or "
            "save it again."
        )
    needed = math.prod(shape) * _DTYPES[code].itemsize
    if needed != end - begin:
        raise CheckpointError(
            f"{where}: shape {shape} of {code} needs {needed} bytes, the header gives it {end - begin}."
        )
    return TensorEntry(name, file, code, tuple(shape), first + begin, needed)


def _are_sizes(values) -> bool:
    return isinstance(values, list) and all(
        isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**63 for x in values
    )


def _check_layout(file: Path, entries: list[TensorEntry], first: int, total: int) -> None:
    """The format wants the data region covered exactly: no overlap, no hole, nothing behind it."""
    position = first
    for entry in entries:
        if entry.start != position:
            what = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            raise CheckpointError(
                f"{file}: tensor {entry.name[:200]!r} {what}: expected to start at byte {position}, starts at "
                f"{entry.start}."
            )
        position += entry.size
    if position != total:
        raise CheckpointError(
            f"{file}: {total - position} bytes follow the last tensor: expected {position} bytes, the file has {total}."
        )


def read_tensor(entry: TensorEntry, rows: int | None = None, dtype: np.dtype | None = None) -> np.ndarray:
    """One tensor's values, read by seeking; a cast happens block by block, so that no second copy of the tensor is
    made.

    Args:
        entry: from `read_header`.
        rows: read the first `rows` of the outermost dimension only; default all.
        dtype: cast to this; default the file's.

    Returns:
        A new array of shape `entry.shape`, or (rows, ...).
    """
    values = np.empty(entry.shape if rows is None else (rows, *entry.shape[1:]), dtype or entry.dtype)
    flat = values.reshape(-1)
    block = (
        flat
        if flat.dtype == entry.dtype
        else np.empty(min(flat.size, _BLOCK_BYTES // entry.dtype.itemsize), entry.dtype)
    )
    with open(entry.file, "rb", buffering=0) as stream:
        stream.seek(entry.start)
        for i in range(0, flat.size, max(1, block.size)):
            part = block[: flat.size - i]
            _fill(part, stream, entry, i * entry.dtype.itemsize)
            if block is not flat:
                flat[i : i + part.size] = part
    return values


def _fill(part: np.ndarray, stream: BinaryIO, entry: TensorEntry, before: int) -> None:
    """Reads as many bytes as `part` (one-dimensional) holds; `before` bytes of the tensor were read already."""
    # Extension dtypes such as bfloat16 have no buffer protocol, bytes have.
    target = part.view(np.uint8).data
    done = 0
    while done < len(target):
        count = stream.readinto(target[done : done + _BLOCK_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise CheckpointError(
                f"{entry.file}: tensor {entry.name!r} ends after {before + done} of {entry.size} bytes. The file is "
                "cut short."
            )
        done += count


class SafetensorsWriter:
    """Writes one safetensors file tensor by tensor, in any order; the name appears only once everything is on disk.

    Args:
        file: the final name. The bytes go to a temporary name beside it, are synced, and renamed by `close`.
        shapes: tensor name → shape, all tensors of the file.
        dtype: "float32", "bfloat16" or "float16", for all tensors that `dtypes` does not name.
        dtypes: tensor name → numpy dtype, of tensors that are kept as another.
        metadata: strings to keep in the header.

    As a context manager it closes on success and removes the temporary file on an error. `close` raises CheckpointError
    where a tensor is missing.
    """

    def __init__(
        self, file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, metadata: Mapping[str, str] | None = None,
        dtypes: Mapping[str, np.dtype] = types.MappingProxyType({}),
    ):  # fmt: skip
        self.file = Path(file)
        self._dtypes = {name: dtypes.get(name, float_dtype(dtype)) for name in shapes}
        self._temporary = temporary_beside(self.file)
        self._missing = dict(shapes)
        # transformers refuses a file without a format
        header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
        position, starts = 0, {}
        for name, shape in shapes.items():
            size = math.prod(shape) * self._dtypes[name].itemsize
            header[name] = {
                "dtype": _CODES[self._dtypes[name]],
                "shape": list(shape),
                "data_offsets": [position, position + size],
            }
            starts[name] = position
            position += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.data_bytes = position
        self._starts = {name: start + 8 + len(text) for name, start in starts.items()}
        self._stream = open(self._temporary, "wb")  # noqa: SIM115 - closed by close() or discard()
        try:
            self._stream.write(struct.pack("<Q", len(text)) + text)
        except OSError:
            self.discard()
            raise

    def write(self, name: str, values: np.ndarray) -> None:
        """Writes one tensor, cast to its dtype in blocks of rows, so that no second copy of it is made.

        Raises:
            CheckpointError: an unknown or repeated name, or another shape than announced.
        """
        if name not in self._missing:
            raise CheckpointError(f"{self.file}: tensor {name!r} was not announced or is written twice.")
        if values.shape != self._missing[name]:
            raise CheckpointError(
                f"{self.file}: tensor {name!r}: expected shape {self._missing[name]}. Received: {values.shape}"
            )
        self._stream.seek(self._starts[name])
        values = np.atleast_1d(values)
        rows = max(1, _BLOCK_BYTES // max(1, values[:1].size * 4))
        for i in range(0, len(values), rows):
            block = np.ascontiguousarray(values[i : i + rows].astype(self._dtypes[name], copy=False))
            self._stream.write(block.reshape(-1).view(np.uint8).data)
        del self._missing[name]

    def close(self) -> None:
        """Syncs and renames to the final name."""
        self.finish()
        self.publish()

    def finish(self) -> None:
        """Everything but the rename: checks that all tensors came, and syncs."""
        if self._missing:
            some = ", ".join(list(self._missing)[:3])
            raise CheckpointError(f"{self.file}: {len(self._missing)} tensors were never written: {some}.")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def publish(self) -> None:
        """The rename, after `finish`."""
        os.replace(self._temporary, self.file)
        sync_folder(self.file.parent)

    def discard(self) -> None:
        """Removes the temporary file."""
        with contextlib.suppress(OSError):  # a full disk fails again when the last buffer is flushed
            self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except (CheckpointError, OSError):
            self.discard()
            raise


def float_dtype(name: str) -> np.dtype:
    """The numpy dtype of a weight dtype's name, "float32", "bfloat16" or "float16"."""
    known = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
    if name not in known:
        raise CheckpointError(f"Weights are kept as one of {', '.join(known)}. Received: dtype={name!r}")
    return np.dtype(known[name])
