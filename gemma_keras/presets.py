"""Where a model comes from and goes to: the formats of `checkpoints/` joined with the tokenizer, for every task
model."""

import dataclasses
import pathlib
from collections.abc import Iterable

import keras
import numpy as np

from gemma_keras.checkpoints import formats, keras_hub, keras_hub_lora, peft, resolve
from gemma_keras.checkpoints.format import StoredModel
from gemma_keras.checkpoints.hugging_face_writer import MODEL_FILES
from gemma_keras.checkpoints.weights import StoredWeights
from gemma_keras.config import GemmaConfig, size_name
from gemma_keras.files import atomic_folder
from gemma_keras.initializers import FirstWeights, LoadedWeights, RandomWeights
from gemma_keras.text.folder import TOKENIZER_FILES


def read(preset, load_weights: bool = True) -> StoredModel:
    """Open `preset`: a path or handle of any format in `checkpoints/formats.py`, a hub id, a published name such as
    "gemma2_2b" or KerasHub's "gemma2_2b_en", or the folder of an adapter, which gives its base and says so in
    `adapter` where weights are wanted.

    A published name with `load_weights=False` is a size alone: no tokenizer, and nothing is fetched.

    Raises:
        CheckpointError: nothing there, a damaged or foreign model, or a hub that cannot be reached.
    """
    name = str(preset)
    if not load_weights and size_name(name) and not pathlib.Path(name).exists():
        return StoredModel(GemmaConfig.from_name(name), None, None)
    stored = resolve.open_parts(name, with_weights=load_weights)
    return stored if load_weights else dataclasses.replace(stored, adapter=None)


def first_weights(stored: StoredModel, seed: int) -> FirstWeights:
    """What a model of it is made with; random ones keyed by `seed` where the weights were not wanted."""
    return LoadedWeights(stored.weights) if isinstance(stored.weights, StoredWeights) else RandomWeights(seed)


def write(
    folder,
    config: GemmaConfig,
    arrays: Iterable[tuple[str, np.ndarray]],
    tokenizer,
    dtype: str = "float32",
    reward=None,
) -> None:
    """Write a Hugging Face folder: configuration, weights, tokenizer, chat template, stop ids.

    The files take their places when all of them are complete: an error, a full disk or the end of the process leaves a
    model that stood there as it was, or the new one; see `files.py`. Files that are no part of a model
    stay.

    Args:
        folder: made where it is missing.
        arrays: (our name, array), as `GemmaBackbone.named_arrays`, with "score" for a reward model.
        tokenizer: `GemmaTokenizer`; None writes none, and leaves one that stands there.
        dtype: of the weights in the file.
        reward: {"reward_mean", "reward_std"} for a reward model.
    """
    stale = [*MODEL_FILES, *(TOKENIZER_FILES if tokenizer is not None else ())]
    if keras_hub.is_preset(pathlib.Path(folder)):  # which would be opened in place of what is written
        stale += keras_hub.PRESET_FILES
    with atomic_folder(folder, stale) as temporary:
        formats.DEFAULT.write(temporary, StoredModel(config, arrays, tokenizer, dtype, reward))


def write_adapter(folder, backbone, name: str | None, base: str | None = None, score=None) -> None:
    """Write one adapter of a backbone as PEFT does; over an adapter that stands there as `write` over a model.

    Args:
        name: the adapter, default the active one.
        base: path or hub id of the base model, for tools that load both.
        score: a reward model's head, variable (d, 1), or None.

    Raises:
        ValueError: no such adapter.
    """
    name = backbone.active_adapter if name is None else name
    options, pairs = _options_of(backbone, name), _pairs_of(backbone, name)
    with atomic_folder(folder) as temporary:
        peft.write_adapter(temporary, backbone.config, options, pairs, base, None if score is None else _host(score))


def write_lora_file(file, backbone, name: str | None) -> None:
    """Write one adapter of a backbone as one safetensors file.

    Raises:
        ValueError: no such adapter, or a file that is not named `.safetensors`.
    """
    if not str(file).endswith(".safetensors"):
        raise ValueError(
            f"An adapter's file must end in .safetensors; KerasHub's .lora.h5 is read, not written. Received: {file}"
        )
    name = backbone.active_adapter if name is None else name
    peft.write_file(file, backbone.config, _options_of(backbone, name), _pairs_of(backbone, name))


def read_lora_file(file, backbone, name: str) -> None:
    """Give a backbone the adapter of one file: `write_lora_file`'s, or KerasHub's `.lora.h5`. It becomes the active
    one.

    Raises:
        CheckpointError: a file that is damaged, of another kind, or of another base model.
        ValueError: the backbone has an adapter `name` of another rank, scale or place.
    """
    reader = keras_hub_lora if str(file).endswith(".lora.h5") else peft
    options, pairs = reader.read_file(file, backbone.config)
    present = backbone.adapters.get(name)
    if present is None:
        backbone.add_adapter(name, options)
    elif (present.scale, present.rank, present.targets, present.layers) != (
        options.scale, options.rank, options.targets, options.layers,
    ):  # fmt: skip
        raise ValueError(
            f"{file}: its adapter differs from {name!r}, which the model has. Expected {present}, received {options}. "
            "Call delete_adapter first, or load it under another name"
        )
    else:
        backbone.set_adapter(name)
    _assign(backbone, name, pairs)


def read_adapter(folder, backbone, name: str) -> np.ndarray | None:
    """Add an adapter that PEFT or `write_adapter` wrote to a backbone, and make it the active one.

    Returns:
        The reward head (d, 1) that came with it, or None.

    Raises:
        CheckpointError: a folder that is damaged, of another kind, or of another base model.
        ValueError: the name is taken.
    """
    options, pairs, score = peft.read_adapter(folder, backbone.config)
    backbone.add_adapter(name, options)
    _assign(backbone, name, pairs)
    return score


def _options_of(backbone, name):
    if name not in backbone.adapters:
        raise ValueError(f"There is no adapter {name!r} to save. Known: {', '.join(backbone.adapters) or 'none'}")
    return backbone.adapters[name]


def _pairs_of(backbone, name):
    paths = ((full_name, projection.adapter(name)) for full_name, projection in backbone.projections().items())
    return ((full_name, _host(path.a), _host(path.b)) for full_name, path in paths if path is not None)


def _assign(backbone, name, pairs):
    projections = backbone.projections()
    for full_name, (a, b) in pairs.items():
        path = projections[full_name].adapter(name)
        path.a.assign(a)
        path.b.assign(b)


def _host(variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))
