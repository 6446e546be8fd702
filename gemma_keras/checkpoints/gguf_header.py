"""The header of a GGUF file: metadata and where each tensor lies, with every length checked against the file before
memory is asked for.

Parsed here because the `gguf` package takes about 10 s for the string arrays of a 262,144-piece vocabulary (this takes
half a second) and trusts the lengths it reads. Little-endian files of versions 2 and 3, which are all that are
published.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.files import need_file
from gemma_keras.json_values import shown

_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_DIMENSIONS, _LONGEST_NAME = 10_000, 100_000, 4, 1024


@dataclasses.dataclass(frozen=True)
class GGUFTensor:
    """Where one tensor lies.

    Args:
        name: the tensor's name in the file.
        shape: dimensions in numpy's order, outermost first (the file holds them reversed).
        kind: number of the ggml type, e.g. 0 float32, 8 Q8_0.
        start: first byte, from the beginning of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclasses.dataclass(frozen=True)
class GGUFHeader:
    """A parsed header.

    Args:
        metadata: key → str, int, float, bool, list of str, or numpy array of numbers.
        tensors: name → place.
        file_bytes: size of the file.
    """

    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    file_bytes: int


def read_header(file: Path) -> GGUFHeader:
    """Parses the header of `file`.

    Raises:
        CheckpointError: no GGUF file, cut short, or malformed: says where.
    """
    try:
        need_file(file)
        with open(file, "rb") as stream:
            return _Parser(file, stream).parse()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}.") from error


class _Parser:
    def __init__(self, file: Path, stream: BinaryIO):
        self.file, self.stream = file, stream
        self.left = self.total = file.stat().st_size

    def parse(self) -> GGUFHeader:
        magic = self.take(min(4, self.total), "the magic number")
        if magic != b"GGUF":
            raise CheckpointError(
                f"{self.file}: not a GGUF file: expected it to begin with b'GGUF'. Received: {magic!r}"
            )
        version = self.number("<I", "the version")
        if version not in (2, 3):
            raise CheckpointError(f"{self.file}: expected GGUF version 2 or 3, little-endian. Received: {version}")
        tensor_count = self.count(_MOST_TENSORS, "number of tensors")
        key_count = self.count(_MOST_KEYS, "number of metadata keys")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self.string("a metadata key", longest=65_535)
            if key in metadata:
                raise CheckpointError(f"{self.file}: metadata key {key[:200]!r} occurs twice.")
            metadata[key] = self.value(self.number("<I", f"the type of {key[:200]!r}"), key)
        infos = [self.tensor_info() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if (
            not isinstance(alignment, int)
            or isinstance(alignment, bool)
            or not 8 <= alignment <= 65_536
            or alignment & (alignment - 1)
        ):
            raise CheckpointError(
                f"{self.file}: `general.alignment` must be a power of two from 8 to 65536. Received: {shown(alignment)}"
            )
        position = self.total - self.left
        data_start = -(-position // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in infos:
            if name in tensors:
                raise CheckpointError(f"{self.file}: tensor {name!r} occurs twice.")
            if offset % alignment:
                raise CheckpointError(
                    f"{self.file}: tensor {name!r}: offset {offset} is no multiple of the alignment {alignment}."
                )
            tensors[name] = GGUFTensor(name, shape, kind, data_start + offset)
        return GGUFHeader(metadata, tensors, self.total)

    def take(self, size: int, what: str) -> bytes:
        if size > self.left:
            raise CheckpointError(
                f"{self.file}: {what[:200]} needs {size} bytes, {self.left} are left. The file is cut short: download "
                "it again."
            )
        self.left -= size
        return self.stream.read(size)

    def number(self, layout: str, what: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def count(self, most: int, what: str) -> int:
        value = self.number("<Q", f"the {what}")
        if value > most:
            raise CheckpointError(f"{self.file}: the {what} must be at most {most}. Received: {value}")
        return value

    def string(self, what: str, longest: int | None = None) -> str:
        size = self.number("<Q", what)
        if longest is not None and size > longest:
            raise CheckpointError(f"{self.file}: {what[:200]} must be at most {longest} bytes long. Received: {size}")
        return self.decode(self.take(size, what), what)

    def decode(self, raw: bytes, what: str) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.file}: {what[:200]} is not UTF-8: {error}.") from error

    def value(self, kind: int, raw_key: str) -> Any:
        key = repr(raw_key[:200])  # errors quote it, whatever it holds
        if kind == _STRING:
            return self.string(key)
        if kind == _ARRAY:
            return self.array(key)
        dtype = self.scalar_dtype(kind, key)
        value = np.frombuffer(self.take(dtype.itemsize, key), dtype)[0]
        # The shortest decimal that rounds to this float32: 1e-06 and not 9.999999974752427e-07.
        return float(str(value)) if dtype == np.float32 else value.item()

    def scalar_dtype(self, kind: int, key: str) -> np.dtype:
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.file}: metadata {key} has the unknown type {kind}.")
        return np.dtype(_SCALARS[kind])

    def array(self, key: str) -> Any:
        kind = self.number("<I", key)
        length = self.number("<Q", key)
        if kind == _STRING:
            if length * 8 > self.left:
                raise CheckpointError(
                    f"{self.file}: metadata {key} claims {length} strings, {self.left} bytes are left."
                )
            return self.strings(length, key)
        dtype = self.scalar_dtype(kind, key)  # arrays of arrays are in no published file and are refused here
        return np.frombuffer(self.take(length * dtype.itemsize, key), dtype)

    def strings(self, length: int, key: str) -> list[str]:
        """262,144 pieces a vocabulary: the one hot loop here, so without a call per number."""
        read, unpack, left = self.stream.read, struct.Struct("<Q").unpack, self.left
        out: list[str] = []
        for _ in range(length):
            head = read(8) if left >= 8 else b""
            size = unpack(head)[0] if len(head) == 8 else left + 1
            left -= 8 + size
            if left < 0:
                raise CheckpointError(f"{self.file}: metadata {key} is cut short after {len(out)} of {length} strings.")
            raw = read(size)
            try:
                out.append(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise CheckpointError(
                    f"{self.file}: metadata {key}, string {len(out)}, is not UTF-8: {error}."
                ) from error
        self.left = left
        return out

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string("a tensor's name", longest=_LONGEST_NAME)
        rank = self.number("<I", f"the rank of {name!r}")
        if rank > _MOST_DIMENSIONS:
            raise CheckpointError(
                f"{self.file}: tensor {name!r} must have at most {_MOST_DIMENSIONS} dimensions. Received: {rank}"
            )
        shape = tuple(self.number("<Q", f"the shape of {name!r}") for _ in range(rank))[::-1]
        if math.prod(max(1, size) for size in shape) >= 2**62:
            raise CheckpointError(f"{self.file}: tensor {name!r}: the shape {shape} is larger than any file.")
        return name, shape, self.number("<I", f"the type of {name!r}"), self.number("<Q", f"the offset of {name!r}")
