"""Reads a Hugging Face folder: `config.json`, safetensors in one or several files.

Arrays are numpy; nothing here imports Keras. The configuration, every shard's header and every tensor's name, shape and
dtype are checked before the first array is allocated. Tokenizer files are the tokenizer's own matter.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gemma_keras.checkpoints import names
from gemma_keras.checkpoints import safetensors_file as st
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.hugging_face_config import config_from_dict
from gemma_keras.checkpoints.weights import Reader, StoredWeights
from gemma_keras.config import GemmaConfig
from gemma_keras.json_values import finite_number, read_object, shown

CONFIG_FILE = "config.json"
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
# Tensors of a folder that are no part of the text model: the vision tower, and buffers and tied copies that old
# versions saved.
_IGNORED_PREFIXES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
_IGNORED_SUFFIXES = ("rotary_emb.inv_freq", "lm_head.weight")


def read_config(folder: str | Path) -> GemmaConfig:
    """The model that `folder`'s `config.json` describes, in the dialect of transformers 4 or 5.

    Raises:
        CheckpointError: no or malformed file, or another kind of model.
    """
    file = Path(folder) / CONFIG_FILE
    return config_from_dict(read_json(file), str(file))


def read_dtype(folder: str | Path) -> str | None:
    """The weights' dtype by `config.json` ("float32", "bfloat16", "float16"), or None where it says nothing we know."""
    table = read_json(Path(folder) / CONFIG_FILE)
    nested = table.get("text_config")
    for level in (table, nested if isinstance(nested, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            if level.get(key) in ("float32", "bfloat16", "float16"):
                return level[key]
    return None


def read_reward(folder: str | Path) -> dict[str, float] | None:
    """`reward_mean` and `reward_std` of a reward model's folder (0 and 1 where another tool wrote it), None for a
    language model's.

    Raises:
        CheckpointError: a classifier with other than one label, or statistics that are no finite numbers, `reward_std`
            > 0.
    """
    file = Path(folder) / CONFIG_FILE
    table = read_json(file)
    if not is_classifier(table):
        return None
    labels = table.get("id2label")
    count = len(labels) if isinstance(labels, dict) else table.get("num_labels", 2)
    if count != 1:
        raise CheckpointError(f"{file}: a reward model has one label. Received: num_labels={shown(count)}")
    statistics = {"reward_mean": table.get("reward_mean", 0.0), "reward_std": table.get("reward_std", 1.0)}
    for name, value in statistics.items():
        number = finite_number(value)
        if number is None or (name == "reward_std" and number <= 0):
            raise CheckpointError(
                f"{file}: `{name}` must be a finite number{', > 0' if name == 'reward_std' else ''}. Received: "
                f"{shown(value)}"
            )
    return {name: float(value) for name, value in statistics.items()}


def read_weights(folder: str | Path, dtype: str | None = None) -> StoredWeights:
    """The weights of a folder, to be read one at a time.

    All checks are made by this call, before it returns and before anything large is allocated.
    Rows of the embedding beyond the vocabulary (the 256,128-row padding, Gemma 3's image token) are never read.

    Args:
        folder: a Hugging Face folder.
        dtype: cast to "float32", "bfloat16" or "float16"; default what the file holds (bfloat16 as
            `ml_dtypes.bfloat16`).

    Returns:
        Each weight of `names.expected_shapes(config)`, and `score` (d, 1) where the folder holds one.

    Raises:
        CheckpointError: names file and tensor: pickled weights, a missing shard or tensor, unexpected tensors, shapes,
            dtypes, bounds.
    """
    folder = Path(folder)
    config = read_config(folder)
    entries = _checked_entries(folder, config)

    def reader(name: str, entry: st.TensorEntry) -> Reader:
        def read(target: np.dtype | None) -> np.ndarray:
            values = st.read_tensor(entry, rows=config.vocabulary_size if name == "embedding" else None, dtype=target)
            return values.T if names.is_transposed(name) else values

        return read

    return StoredWeights(str(folder), {name: reader(name, entry) for name, entry in entries.items()}, dtype)


def _checked_entries(folder: Path, config: GemmaConfig) -> dict[str, st.TensorEntry]:
    """Our name → where it lies, in the order of files, all of them checked against `config`."""
    found: dict[str, st.TensorEntry] = {}
    unexpected: list[st.TensorEntry] = []
    for entry in _all_entries(folder):
        name = names.our_name_from_hugging_face(entry.name, config)
        if name is None:
            if not entry.name.startswith(_IGNORED_PREFIXES) and not entry.name.endswith(_IGNORED_SUFFIXES):
                unexpected.append(entry)
        elif name in found:
            raise CheckpointError(
                f"{entry.file}: tensors {found[name].name[:200]!r} and {entry.name[:200]!r} are both {name!r}."
            )
        else:
            found[name] = entry
    needs_score = "score" in found or is_classifier(read_json(folder / CONFIG_FILE))
    shapes = names.expected_shapes(config, with_score=needs_score)
    missing = [name for name in shapes if name not in found]
    if missing:
        theirs = names.hugging_face_name(missing[0], config)
        listed = next(file for file in (folder / WEIGHTS_FILE, folder / INDEX_FILE) if file.is_file())
        raise CheckpointError(
            f"{listed}: {len(missing)} of {len(shapes)} tensors of a {config.family} with {config.num_layers} layers "
            f"are missing, the first is {theirs!r}. {CONFIG_FILE} and the weights do not belong together, or a file is "
            "missing."
        )
    if unexpected:
        entry = unexpected[0]
        raise CheckpointError(
            f"{entry.file}: {len(unexpected)} tensors are no weights of a {config.family} with {config.num_layers} "
            f"layers, the first is {entry.name[:200]!r}. {CONFIG_FILE} and the weights do not belong together; "
            "adapters must be merged first."
        )
    for name, entry in found.items():
        _check_entry(name, entry, names.file_shape(name, shapes[name]))
    return found


def _check_entry(name: str, entry: st.TensorEntry, wanted: tuple[int, ...]) -> None:
    padded = (
        name == "embedding" and len(entry.shape) == 2 and entry.shape[0] > wanted[0] and entry.shape[1] == wanted[1]
    )
    if entry.shape != wanted and not padded:
        raise CheckpointError(
            f"{entry.file}: tensor {entry.name!r}: expected shape {wanted} by {CONFIG_FILE}. Received: {entry.shape}"
        )
    if entry.code not in st.FLOAT_CODES:
        raise CheckpointError(
            f"{entry.file}: tensor {entry.name!r}: expected one of {', '.join(st.FLOAT_CODES)}. Received: "
            f"{entry.code}. Dequantize the checkpoint first."
        )


def _all_entries(folder: Path) -> Iterator[st.TensorEntry]:
    """Every tensor of the folder's weight file or shards."""
    index, single = folder / INDEX_FILE, folder / WEIGHTS_FILE
    if single.is_file():
        yield from st.read_header(single).values()
        return
    if not index.is_file():
        raise CheckpointError(_no_weights(folder))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: expected the object `weight_map`, tensor name to file name. Received: {shown(weight_map)}"
        )
    files: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        files.setdefault(_plain_file_name(index, tensor, name), set()).add(tensor)
    for name, tensors in sorted(files.items()):
        shard = folder / name
        if not shard.is_file():
            raise CheckpointError(
                f"{shard}: this shard is named by {INDEX_FILE} and is not there. Download the folder again."
            )
        entries = st.read_header(shard)
        absent = sorted(tensors - set(entries))
        if absent:
            raise CheckpointError(
                f"{shard}: tensor {absent[0][:200]!r} should be here by {INDEX_FILE} and is not ({len(absent)} absent)."
            )
        yield from (entry for entry in entries.values() if entry.name in tensors)


def _plain_file_name(index: Path, tensor: str, name: Any) -> str:
    """An index is data from elsewhere: it may name files beside it and nothing else."""
    plain = (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and PurePosixPath(name).name == name
        and not set(name) & set("\\:\0")
    )
    if not plain:
        raise CheckpointError(
            f"{index}: tensor {shown(tensor)} must lie in a .safetensors file of the same folder. Received: "
            f"{shown(name)}"
        )
    return name


def _no_weights(folder: Path) -> str:
    for pattern in _PICKLES:
        for file in sorted(folder.glob(pattern)):
            return (
                f"{folder}: no safetensors; {file.name} is not opened, because pickled and HDF5 weights can run code "
                "when read. Convert to safetensors where you trust the file: transformers' "
                "from_pretrained(...).save_pretrained(folder)."
            )
    return f"{folder}: no weights: expected {WEIGHTS_FILE} or {INDEX_FILE}. Give a folder that holds a model."


def is_classifier(table: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a reward model."""
    architectures = table.get("architectures")
    return isinstance(architectures, list) and any(
        isinstance(x, str) and x.endswith("ForSequenceClassification") for x in architectures
    )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; duplicate keys are refused.

    Raises:
        CheckpointError: no such file, too large, not JSON, not an object.
    """
    try:
        return read_object(file)
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read: {error.strerror or error}. Give a folder that holds a model."
        ) from error
    except ValueError as error:
        raise CheckpointError(str(error)) from error
