"""What is checked of a KerasHub preset's folder before KerasHub opens it: the classes that its JSON names, its sizes,
and what its HDF5 files would have KerasHub allocate or read. Imports neither Keras nor KerasHub.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.hugging_face_reader import read_json
from gemma_keras.checkpoints.keras_hub_config import config_of_arguments
from gemma_keras.config import MAX_LAYERS, GemmaConfig
from gemma_keras.json_values import finite_number, shown

CONFIG_FILE, TOKENIZER_CONFIG_FILE = "config.json", "tokenizer.json"
WEIGHT_FILES = ("model.weights.h5", "model_*.weights.h5")
"""Patterns of the files that hold weights."""

BACKBONES = ("GemmaBackbone", "Gemma3Backbone")
_MODULES = ("keras_hub.", "keras_nlp.")
_SIZES = (
    "vocabulary_size", "num_layers", "num_query_heads", "num_key_value_heads", "hidden_dim", "intermediate_dim",
    "head_dim",
)  # fmt: skip
_NUMBERS = (
    "layer_norm_epsilon", "attention_logit_soft_cap", "final_logit_soft_cap", "global_rope_scaling_factor",
)  # fmt: skip
_LARGEST_SIZE = 2**31 - 1
_MOST_VALUES_A_BYTE = 2  # of KerasHub's int4 kernels
_LAYER_OPTIONS = ("name", "trainable", "dtype")


def check_folder(folder: Path) -> None:
    """Refuse a preset that KerasHub should not be given.

    Raises:
        CheckpointError: no Gemma text model; an object of another library in its JSON; sizes that its weight files
            cannot hold; a weight file that `check_weights` refuses.
    """
    file = folder / CONFIG_FILE
    table = read_json(file)
    _check_classes(file, table)
    if table.get("class_name") not in BACKBONES:
        raise CheckpointError(
            f"{file}: expected a Gemma, Gemma 2 or Gemma 3 backbone. Received: {shown(table.get('class_name'))}"
        )
    config = _config(file, table.get("config"), table["class_name"] == "Gemma3Backbone")
    weights = sorted({path for pattern in WEIGHT_FILES for path in folder.glob(pattern)})
    size = sum(path.stat().st_size for path in weights)
    if config.parameter_count > _MOST_VALUES_A_BYTE * size:
        raise CheckpointError(
            f"{file}: its sizes make {config.parameter_count:,} parameters, and the weight files beside it have "
            f"{size:,} bytes. They do not belong together, or a file is missing."
        )
    for path in weights:
        check_weights(path)
    if (folder / TOKENIZER_CONFIG_FILE).is_file():
        _check_classes(folder / TOKENIZER_CONFIG_FILE, read_json(folder / TOKENIZER_CONFIG_FILE))


def check_weights(file: Path) -> None:
    """Refuse an HDF5 file that claims more values than its bytes can hold, or that leads out of itself.

    Raises:
        CheckpointError: also where it is no HDF5 file.
    """
    import h5py  # comes with Keras; here, because reading other formats needs none

    size = file.stat().st_size
    claimed = 0

    def problem(name: str, link: Any) -> str | None:  # h5py goes on while it gets None, and must not see an error
        nonlocal claimed
        if not isinstance(link, h5py.HardLink):
            return f"{name[:200]!r} is a link to elsewhere, which no weights need"
        found = stream.get(name)
        if not isinstance(found, h5py.Dataset):
            return None
        if found.external or found.is_virtual:
            return f"{name[:200]!r} lies in another file, which no weights need"
        claimed += found.nbytes
        if claimed <= size:
            return None
        return (
            f"{name[:200]!r} claims {found.nbytes:,} bytes, {claimed:,} with those before it; the file has {size:,}. "
            "Keras compresses no weights: download it again"
        )

    try:
        with h5py.File(file, "r") as stream:
            found = stream.visititems_links(problem)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, SystemError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise CheckpointError(f"{file}: cannot be read as HDF5: {reason}.") from error
    if found is not None:
        raise CheckpointError(f"{file}: {found}.")


def _config(file: Path, table: Any, is_gemma3: bool) -> GemmaConfig:
    if not isinstance(table, Mapping):
        raise CheckpointError(f"{file}: `config` must be an object. Received: {shown(table)}")
    for name in _SIZES:
        value, most = table.get(name), MAX_LAYERS if name == "num_layers" else _LARGEST_SIZE
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise CheckpointError(f"{file}: `{name}` must be an integer from 1 to {most}. Received: {shown(value)}")
    for name in _NUMBERS:
        if table.get(name) is not None and (finite_number(table[name]) or 0.0) <= 0:
            raise CheckpointError(f"{file}: `{name}` must be a number > 0. Received: {shown(table[name])}")
    try:
        return config_of_arguments(
            {name: value for name, value in table.items() if name not in _LAYER_OPTIONS}, is_gemma3
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{file}: {str(error)[:300]}") from error


def _check_classes(file: Path, table: Mapping[str, Any]) -> None:
    """Keras imports the modules that an object's JSON names: only KerasHub's own, and Keras' types of numbers."""
    for found in _objects(table):
        module, name = found.get("module"), found["class_name"]
        is_dtype = module == "keras" and isinstance(name, str) and name.endswith(("DTypePolicy", "DTypePolicyMap"))
        if not is_dtype and not (isinstance(module, str) and module.startswith(_MODULES)):
            raise CheckpointError(
                f"{file}: expected objects of KerasHub. Received: {shown(name)} of module {shown(module)}"
            )


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            if "class_name" in one:
                yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
