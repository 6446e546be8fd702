"""Where a model comes from and goes to: the formats of `checkpoints/` joined with the tokenizer, for every task model."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable

import keras
import numpy as np

from gemma_keras.checkpoints import gguf, hugging_face, keras_hub, peft, resolve
from gemma_keras.checkpoints.tokenizers import read_tokenizer
from gemma_keras.checkpoints.weights import StoredWeights
from gemma_keras.config import GemmaConfig, size_name
from gemma_keras.errors import InputError
from gemma_keras.initializers import FirstWeights, LoadedWeights, RandomWeights
from gemma_keras.tokenizer import GemmaTokenizer


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model that can be read.

    Attributes:
        config: its sizes.
        weights: checked and still on disk; None where they are not wanted.
        tokenizer: or None where the source has none.
        folder: its Hugging Face folder, or None for a GGUF file or a bare size.
    """

    config: GemmaConfig
    weights: StoredWeights | None
    tokenizer: GemmaTokenizer | None
    folder: pathlib.Path | None = None

    def first_weights(self, seed: int) -> FirstWeights:
        """What a model of it is made with; random ones keyed by `seed` where the weights are not wanted."""
        return RandomWeights(seed) if self.weights is None else LoadedWeights(self.weights)


def read(preset, load_weights: bool = True) -> Preset:
    """Find `preset`: a published size by name (without weights), a Hugging Face folder, a hub id, a `.gguf` file, or a KerasHub preset
    (its folder, or a `kaggle://` handle).

    Raises:
        InputError: a published size with `load_weights=True`; its weights lie in a folder or on the hub.
        CheckpointError: nothing there, or a damaged or foreign model.
    """
    name = str(preset)
    if size_name(name) and not pathlib.Path(name).exists():
        if load_weights:
            raise InputError(
                f"{name!r} is a size without weights. Pass load_weights=False for random ones, or name a folder, a hub id or a .gguf file"
            )
        return Preset(GemmaConfig.from_name(name), None, None)
    if name.startswith("kaggle://") or keras_hub.is_preset(pathlib.Path(name)):
        return from_keras_hub(*keras_hub.open_preset(name), load_weights)
    path = resolve.resolve(name)
    if path.is_file():
        config = gguf.read_config(path)
        return Preset(config, gguf.read_weights(path) if load_weights else None, read_tokenizer(path, config))
    config = hugging_face.read_config(path)
    return Preset(config, hugging_face.read_weights(path) if load_weights else None, read_tokenizer(path, config), path)


def from_keras_hub(backbone, tokenizer_proto: bytes | None, load_weights: bool = True) -> Preset:
    """KerasHub's backbone, and the SentencePiece model that came with it, as a preset."""
    config = keras_hub.config_of(backbone)
    tokenizer = None if tokenizer_proto is None else GemmaTokenizer(tokenizer_proto, config.family)
    return Preset(config, keras_hub.weights_of(backbone) if load_weights else None, tokenizer)


def write(folder, config: GemmaConfig, arrays: Iterable[tuple[str, np.ndarray]], tokenizer, dtype: str = "float32", reward=None) -> None:
    """Write a Hugging Face folder: configuration, weights, tokenizer, chat template, stop ids.

    The files take their names when all of them are complete: an error or a full disk leaves a model that stood there as it was.

    Args:
        folder: made where it is missing.
        arrays: (our name, array), as `GemmaBackbone.named_arrays`, with "score" for a reward model.
        tokenizer: `GemmaTokenizer` or None; without it the folder opens for ids only.
        dtype: of the weights in the file.
        reward: {"reward_mean", "reward_std"} for a reward model.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        stops = None if tokenizer is None else tokenizer.stop_token_ids
        hugging_face.write_config(temporary, config, dtype, reward, stops)
        hugging_face.write_weights(temporary, arrays)
        if tokenizer is not None:
            tokenizer.save(temporary)
        hugging_face.publish(temporary, folder)


def write_adapter(folder, backbone, name: str | None, base: str | None = None, score=None) -> None:
    """Write one adapter of a backbone as PEFT does.

    Args:
        name: the adapter, default the active one.
        base: path or hub id of the base model, for tools that load both.
        score: a reward model's head, variable (d, 1), or None.

    Raises:
        ValueError: no such adapter.
    """
    name = backbone.active_adapter if name is None else name
    if name not in backbone.adapters:
        raise ValueError(f"There is no adapter {name!r} to save. Known: {', '.join(backbone.adapters) or 'none'}")
    paths = ((full_name, projection.adapter(name)) for full_name, projection in backbone.projections().items())
    pairs = ((full_name, _host(path.a), _host(path.b)) for full_name, path in paths if path is not None)
    peft.write_adapter(folder, backbone.config, backbone.adapters[name], pairs, base, None if score is None else _host(score))


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
    projections = backbone.projections()
    for full_name, (a, b) in pairs.items():
        path = projections[full_name].adapter(name)
        path.a.assign(a)
        path.b.assign(b)
    return score


def _host(variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))
