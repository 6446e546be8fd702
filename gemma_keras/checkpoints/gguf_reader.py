"""Gemma 1, 2 and 3 from a GGUF file: configuration, weights and the tokenizer's metadata, without Keras.

The header is parsed by `gguf_header`; the `gguf` package (an extra) only dequantizes. What GGUF stores differently:
RMSNorm scales as 1 + scale (exact for bfloat16, within 2e-7 in float32); nothing about the attention scale, which
llama.cpp derives from the number of layers.
"""

import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints import names
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.gguf_header import GGUFHeader, GGUFTensor, read_header
from gemma_keras.checkpoints.weights import Reader, StoredWeights
from gemma_keras.config import GemmaConfig, every_nth_global
from gemma_keras.install_advice import install_command
from gemma_keras.json_values import shown

_FAMILIES = ("gemma", "gemma2", "gemma3")
# llama.cpp scales queries of these by (width / heads) ** -0.5, all others by head size ** -0.5.
LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
WINDOW_PATTERN = {"gemma2": 2, "gemma3": 6}
_BLOCK_VALUES = 1 << 24
_MOST_LAYERS, _LARGEST_SIZE = 1000, 2**31 - 1


def read_config(file: str | Path) -> GemmaConfig:
    """The model in a GGUF file.

    Raises:
        CheckpointError: no or malformed file, another architecture than gemma, gemma2, gemma3, or sizes that do not
            fit.
    """
    file = Path(file)
    return _config(file, read_header(file))


def read_tokenizer(file: str | Path) -> dict[str, Any] | None:
    """The tokenizer's metadata, for `GemmaTokenizer.from_gguf_metadata`.

    Returns:
        `tokenizer.ggml.tokens` list of str (v), `tokenizer.ggml.scores` float32 (v,), `tokenizer.ggml.token_type` int32
        (v,), `tokenizer.ggml.bos_token_id` and its kin int, and `general.architecture` str, under GGUF's own keys; None
        where the file holds no tokenizer.
    """
    file = Path(file)
    metadata = read_header(file).metadata
    if "tokenizer.ggml.tokens" not in metadata:
        return None
    if not isinstance(metadata["tokenizer.ggml.tokens"], list):
        raise CheckpointError(f"{file}: `tokenizer.ggml.tokens` must be a list of strings.")
    return {
        key: value for key, value in metadata.items() if key.startswith("tokenizer.") or key == "general.architecture"
    }


def read_weights(file: str | Path, dtype: str | None = None) -> StoredWeights:
    """The weights, to be dequantized one at a time.

    All checks (names, shapes, types, bounds) are made by this call, before it returns.

    Args:
        file: a .gguf file.
        dtype: "float32" (default), "bfloat16" or "float16".

    Returns:
        Each weight of `names.expected_shapes(config)`, to be read one at a time.

    Raises:
        CheckpointError: what is wrong with which tensor, or the `gguf` package is missing.
    """
    file = Path(file)
    header = read_header(file)
    config = _config(file, header)
    package = gguf_package(file)
    found = _checked_tensors(file, header, config, package)
    readers = {name: _reader(file, name, tensor, config, package) for name, tensor in found.items()}
    return StoredWeights(str(file), readers, dtype or "float32")


def gguf_package(file: Path) -> types.ModuleType:
    """The optional package, needed only where there are tensors to read or write."""
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(f"{file}: GGUF weights need the package gguf: {install_command('gguf')}.") from error
    return gguf


def _config(file: Path, header: GGUFHeader) -> GemmaConfig:
    metadata = header.metadata
    family = metadata.get("general.architecture")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise CheckpointError(
            f"{file}: `general.architecture` must be one of {', '.join(_FAMILIES)}. Received: {shown(family)}"
        )
    if _get(metadata, "split.count", 0) not in (0, 1):
        raise CheckpointError(f"{file}: one part of a split model. Join the parts first: llama-gguf-split --merge.")
    values = _Values(file, family, metadata)
    layers, width, queries = (
        values.size("block_count"),
        values.size("embedding_length"),
        values.size("attention.head_count"),
    )
    if layers > _MOST_LAYERS:
        raise CheckpointError(f"{file}: `{family}.block_count` must be at most {_MOST_LAYERS}. Received: {layers}")
    head_dim = values.size("attention.key_length", max(1, width // queries))
    fields: dict[str, Any] = {
        "family": family,
        "vocabulary_size": _vocabulary_size(file, header),
        "num_layers": layers,
        "num_query_heads": queries,
        "num_key_value_heads": values.size("attention.head_count_kv", queries),
        "head_dim": head_dim,
        "hidden_dim": width,
        "intermediate_dim": values.size("feed_forward_length"),
        "context_length": values.size("context_length", 8192),
        "norm_epsilon": values.number("attention.layer_norm_rms_epsilon", 1e-6),
        "rope_theta": values.number("rope.freq_base", 1e6 if family == "gemma3" else 1e4),
        "use_post_norms": family != "gemma",
        "use_query_key_norm": family == "gemma3",
    }
    fields.update({f"{name}_token_id": values.token_id(key, default) for name, key, default in
                   (("pad", "padding", 0), ("eos", "eos", 1), ("bos", "bos", 2))})  # fmt: skip
    scaling = _get(metadata, f"{family}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise CheckpointError(
            f"{file}: `{family}.rope.scaling.type` must be none or linear. Received: {shown(scaling)}"
        )
    if scaling == "linear":
        fields["rope_scale"] = values.number("rope.scaling.factor", 1.0)
    if family == "gemma3":
        fields["local_rope_theta"] = values.number("rope.freq_base_swa", 1e4)
    if family == "gemma2":
        fields["attention_logit_soft_cap"] = values.number("attn_logit_softcapping", 50.0)
        fields["final_logit_soft_cap"] = values.number("final_logit_softcapping", 30.0)
    if family != "gemma":
        per_head = width / queries if layers == LAYERS_OF_27B[family] else head_dim
        fields["query_scale"] = values.number("attention.scale", per_head**-0.5)
        fields["sliding_window"] = values.size("attention.sliding_window", 4096)
        fields["local_layers"] = values.local_layers(layers)
    try:
        return GemmaConfig(**fields)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _vocabulary_size(file: Path, header: GGUFHeader) -> int:
    """Pieces of the tokenizer where there is one; rows beyond them are padding."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{file}: tensor 'token_embd.weight' of two dimensions is missing.")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return min(embedding.shape[0], len(tokens)) if isinstance(tokens, list) and tokens else embedding.shape[0]


def _get(metadata: Mapping[str, Any], key: str, default: Any) -> Any:
    """A metadata value; an array of equal numbers (one a layer) counts as the number."""
    value = metadata.get(key, default)
    if isinstance(value, np.ndarray):
        return value[0].item() if value.size and (value == value[0]).all() else "an array of unequal values"
    return value


class _Values:
    """Typed access to `<family>.*` metadata."""

    def __init__(self, file: Path, family: str, metadata: Mapping[str, Any]):
        self.file, self.family, self.metadata = file, family, metadata

    def size(self, key: str, default: int | None = None) -> int:
        value = _get(self.metadata, f"{self.family}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_SIZE:
            raise CheckpointError(
                f"{self.file}: `{self.family}.{key}` must be an integer >= 1. Received: {shown(value)}"
            )
        return value

    def number(self, key: str, default: float) -> float:
        value = _get(self.metadata, f"{self.family}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise CheckpointError(f"{self.file}: `{self.family}.{key}` must be a number > 0. Received: {shown(value)}")
        return float(value)

    def token_id(self, key: str, default: int) -> int:
        value = _get(self.metadata, f"tokenizer.ggml.{key}_token_id", default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_SIZE:
            raise CheckpointError(
                f"{self.file}: `tokenizer.ggml.{key}_token_id` must be a token id. Received: {shown(value)}"
            )
        return value

    def local_layers(self, layers: int) -> tuple[bool, ...]:
        """Most files leave the pattern to llama.cpp's code; newer ones give a period, or a flag a layer."""
        value = self.metadata.get(f"{self.family}.attention.sliding_window_pattern")
        if isinstance(value, np.ndarray) and value.dtype == np.bool_ and len(value) == layers:
            return tuple(bool(x) for x in value)
        return every_nth_global(layers, self.size("attention.sliding_window_pattern", WINDOW_PATTERN[self.family]))


def _checked_tensors(
    file: Path, header: GGUFHeader, config: GemmaConfig, package: types.ModuleType
) -> dict[str, GGUFTensor]:
    """Our name → place, all of them checked against the configuration and the file's size."""
    shapes = names.expected_shapes(config)
    found: dict[str, GGUFTensor] = {}
    for tensor in header.tensors.values():
        name = names.our_name_from_gguf(tensor.name, config)
        if name is None and tensor.name != "rope_freqs.weight":
            hint = " Untied output embeddings are in no published Gemma." if tensor.name == "output.weight" else ""
            raise CheckpointError(
                f"{file}: tensor {tensor.name!r} is no weight of a {config.family} with {config.num_layers} "
                f"layers.{hint}"
            )
        if name is not None:
            found[name] = tensor
    missing = [name for name in shapes if name not in found]
    if missing:
        raise CheckpointError(
            f"{file}: {len(missing)} tensors are missing, the first is {names.gguf_name(missing[0], config)!r}."
        )
    spans = []
    for name, tensor in found.items():
        wanted = names.file_shape(name, shapes[name])
        padded = name == "embedding" and tensor.shape[0] > wanted[0] and tensor.shape[1:] == wanted[1:]
        if tensor.shape != wanted and not padded:
            raise CheckpointError(f"{file}: tensor {tensor.name!r}: expected shape {wanted}. Received: {tensor.shape}")
        size = (
            tensor.shape[0] * _row_bytes(file, tensor, package)
            if len(tensor.shape) > 1
            else _row_bytes(file, tensor, package)
        )
        if tensor.start + size > header.file_bytes:
            raise CheckpointError(
                f"{file}: tensor {tensor.name!r} ends at byte {tensor.start + size}, the file has {header.file_bytes}. "
                "The file is cut short: download it again."
            )
        spans.append((tensor.start, tensor.start + size, tensor.name))
    for tensor in {tensor.kind: tensor for tensor in found.values()}.values():
        _dequantized(
            file, tensor, bytes(_row_bytes(file, tensor, package)), 1, package
        )  # tells the types that are only stored
    spans.sort()
    for (_, end, before), (start, _, name) in zip(spans, spans[1:], strict=False):
        if start < end:
            raise CheckpointError(f"{file}: tensors {before!r} and {name!r} overlap.")
    return found


def _row_bytes(file: Path, tensor: GGUFTensor, package: types.ModuleType) -> int:
    """Bytes of one row, the unit in which quantized blocks lie."""
    try:
        kind = package.GGMLQuantizationType(tensor.kind)
        block_values, block_bytes = package.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"{file}: tensor {tensor.name!r} has the type {tensor.kind}, which this version of gguf does not know."
        ) from error
    if tensor.shape[-1] % block_values:
        raise CheckpointError(
            f"{file}: tensor {tensor.name!r}: rows of {tensor.shape[-1]} are no multiple of {kind.name}'s "
            f"{block_values}."
        )
    return tensor.shape[-1] // block_values * block_bytes


def _reader(file: Path, name: str, tensor: GGUFTensor, config: GemmaConfig, package: types.ModuleType) -> Reader:
    """The function that reads one weight."""
    shape = (config.vocabulary_size, *tensor.shape[1:]) if name == "embedding" else tensor.shape

    def read(dtype: np.dtype | None) -> np.ndarray:
        # 1 + scale must lose its 1 before it is rounded to a narrow dtype.
        values = np.empty(shape, np.float32 if names.is_norm(name) else dtype)
        rows = values.reshape(-1, shape[-1])
        row_bytes = _row_bytes(file, tensor, package)
        step = max(1, _BLOCK_VALUES // shape[-1])
        with open(file, "rb") as stream:
            stream.seek(tensor.start)
            for i in range(0, len(rows), step):
                count = min(step, len(rows) - i)
                rows[i : i + count] = _dequantized(
                    file, tensor, _read(file, stream, count * row_bytes, tensor), count, package
                )
        if names.is_norm(name):
            values = (values - 1.0).astype(dtype, copy=False)
        return values.T if names.is_transposed(name) else values

    return read


def _read(file: Path, stream: Any, size: int, tensor: GGUFTensor) -> bytes:
    raw = stream.read(size)
    if len(raw) != size:
        raise CheckpointError(
            f"{file}: tensor {tensor.name!r} ends early. The file changed while it was read, or is cut short."
        )
    return raw


def _dequantized(file: Path, tensor: GGUFTensor, raw: bytes, rows: int, package: types.ModuleType) -> np.ndarray:
    """Values of `rows` rows as float32 (rows, row length)."""
    try:
        return package.dequantize(
            np.frombuffer(raw, np.uint8).reshape(rows, -1), package.GGMLQuantizationType(tensor.kind)
        )
    except RuntimeError as error:  # what the package raises for types that it only stores
        name = package.GGMLQuantizationType(tensor.kind).name
        raise CheckpointError(
            f"{file}: tensor {tensor.name!r} has the type {name}, which the gguf package cannot dequantize."
        ) from error
