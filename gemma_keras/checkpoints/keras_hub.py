"""KerasHub's Gemma, Gemma 2 and Gemma 3 (text): model objects and presets, both ways, through KerasHub's own loader and
writer.

What KerasHub stores differently: attention kernels have three axes, heads apart, and the config counts both
feed-forward branches of Gemma 1 and 2. It knows two attention scales, two window patterns and, for Gemma 3, one pair of
rotary bases; anything else is refused.

Needs the extra `keras-hub`. A preset that the user names is opened by KerasHub, its HDF5 files too; what a folder
claims is checked before, see `keras_hub_preset`.
"""

import importlib.util
import json
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints import keras_hub_preset
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.format import FLOAT_DTYPES, StoredModel
from gemma_keras.checkpoints.hub_names import hub_id
from gemma_keras.checkpoints.keras_hub_config import GEMMA3_BASES, WINDOW_PATTERN, config_of_arguments
from gemma_keras.checkpoints.names import is_norm
from gemma_keras.checkpoints.weights import Reader, StoredWeights
from gemma_keras.config import GemmaConfig, every_nth_global
from gemma_keras.errors import InputError
from gemma_keras.install_advice import install_command
from gemma_keras.text.tokenizer import GemmaTokenizer

_NORMS = {
    "attention_norm": "pre_attention_norm", "post_attention_norm": "post_attention_norm",
    "feed_forward_norm": "pre_ffw_norm", "post_feed_forward_norm": "post_ffw_norm",
}  # fmt: skip
_QUERY_KEY_NORMS = {"query_norm": "query_norm", "key_norm": "key_norm"}
_ATTENTION = {"q_proj": "query_dense", "k_proj": "key_dense", "v_proj": "value_dense", "o_proj": "output_dense"}
_FEED_FORWARD = {"gate_proj": "gating_ffw", "up_proj": "gating_ffw_2", "down_proj": "ffw_linear"}
_HANDLES = ("kaggle://", "hf://keras/")  # what only KerasHub opens: its own presets on Kaggle and on the hub
# What KerasHub raises where the JSON of a preset holds other values than it expects.
_FAILURES = (
    ValueError, TypeError, OSError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError,
)  # fmt: skip
TOKENIZER_FILE = "assets/tokenizer/vocabulary.spm"
"""The SentencePiece model in a preset's folder."""
PRESET_FILES = (
    "config.json", "metadata.json", "task.json", "preprocessor.json", "model.weights.*", "model_*.weights.h5",
    "task.weights.h5", "assets",
)  # fmt: skip
"""Patterns of what a preset consists of."""


def is_backbone(model: Any) -> bool:
    """Whether `model` is one of KerasHub's Gemma text backbones; KerasHub need not be installed to ask."""
    return type(model).__module__.startswith("keras_hub.") and type(model).__name__ in keras_hub_preset.BACKBONES


def is_preset(folder: Path) -> bool:
    """Whether a folder is a KerasHub preset."""
    return (folder / "config.json").is_file() and any(
        (folder / name).exists() for name in ("model.weights.h5", "model.weights.json")
    )


def is_serialized(folder: str | Path) -> bool:
    """Whether the `config.json` of a folder that came without weights is a KerasHub object's."""
    file = Path(folder) / "config.json"
    try:
        table = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    name = table.get("registered_name") if isinstance(table, dict) else None
    return isinstance(name, str) and name.startswith(("keras_hub>", "keras_nlp>"))


def check_preset(preset: str | Path) -> None:
    """Raise where a preset or handle cannot be opened whatever it holds. Nothing is fetched.

    Raises:
        CheckpointError: the handle is KerasHub's of a model that is not read here.
        ModuleNotFoundError: the extra `keras-hub` is not installed.
    """
    # The preset's name is a part of its handle; one of a relative is refused before anything is fetched.
    named = str(preset).split("/")[2:] if str(preset).startswith(_HANDLES) else []
    twins = [repository for repository in map(hub_id, named) if repository is not None]
    if importlib.util.find_spec("keras_hub") is None:
        instead = f", or name {twins[0]} on the Hugging Face hub, which has the same weights" if twins else ""
        raise ModuleNotFoundError(
            f"{preset} is opened by KerasHub. Run: {install_command('keras-hub')}{instead}", name="keras_hub"
        )


def open_tokenizer(preset: str | Path) -> GemmaTokenizer:
    """The tokenizer of a preset, through KerasHub; no weights are fetched.

    Raises:
        CheckpointError: KerasHub cannot open it.
        ModuleNotFoundError: the extra `keras-hub` is not installed.
    """
    check_preset(preset)
    import keras_hub

    try:
        return GemmaTokenizer(keras_hub.models.Tokenizer.from_preset(str(preset)).proto)
    except _FAILURES as error:
        raise CheckpointError(
            f"{preset}: KerasHub cannot open this preset's tokenizer: {_first_line(error)}"
        ) from error


def open_preset(preset: str | Path) -> tuple[Any, bytes | None]:
    """KerasHub's backbone and the tokenizer's SentencePiece model (None where the preset has none).

    Args:
        preset: whatever `keras_hub.models.Backbone.from_preset` opens: a folder, or a Kaggle or Hugging Face handle.

    Raises:
        CheckpointError: KerasHub cannot open it, or it is no Gemma text model.
        ModuleNotFoundError: the extra `keras-hub` is not installed.
    """
    check_preset(preset)
    if is_preset(Path(preset)):
        keras_hub_preset.check_folder(Path(preset))
    import keras_hub

    try:
        backbone = keras_hub.models.Backbone.from_preset(str(preset))
    except _FAILURES as error:
        raise CheckpointError(f"{preset}: KerasHub cannot open this preset: {_first_line(error)}") from error
    if not is_backbone(backbone):
        raise CheckpointError(
            f"{preset}: expected a Gemma, Gemma 2 or Gemma 3 backbone. Received: {type(backbone).__name__}"
        )
    try:
        return backbone, keras_hub.models.Tokenizer.from_preset(str(preset)).proto
    except _FAILURES as error:
        file = Path(preset) / keras_hub_preset.TOKENIZER_CONFIG_FILE
        if file.is_file():
            raise CheckpointError(f"{file}: KerasHub cannot open this tokenizer: {_first_line(error)}") from error
        return backbone, None


def parts_of(model: Any) -> tuple[Any, bytes | None]:
    """KerasHub's backbone and SentencePiece model of one of its task models or backbones.

    Raises:
        CheckpointError: another kind of model.
    """
    backbone = getattr(model, "backbone", model)
    if not is_backbone(backbone):
        raise CheckpointError(
            f"Expected KerasHub's Gemma, Gemma 2 or Gemma 3. Received: {type(model).__module__}.{type(model).__name__}"
        )
    tokenizer = getattr(getattr(model, "preprocessor", None), "tokenizer", None)
    return backbone, None if tokenizer is None else tokenizer.proto


def task_of(
    config: GemmaConfig,
    weights: Iterable[tuple[str, np.ndarray]],
    tokenizer_proto: bytes | None,
    dtype: str = "float32",
) -> Any:
    """KerasHub's `GemmaCausalLM` or `Gemma3CausalLM` with these weights, and a preprocessor where there is a
    tokenizer."""
    import keras_hub

    backbone = build(config, dtype)
    assign(backbone, weights)
    stem = "Gemma3" if config.family == "gemma3" else "Gemma"
    preprocessor = None
    if tokenizer_proto is not None:
        try:
            tokenizer = getattr(keras_hub.models, f"{stem}Tokenizer")(proto=tokenizer_proto)
            preprocessor = getattr(keras_hub.models, f"{stem}CausalLMPreprocessor")(tokenizer)
        except ValueError as error:  # its Gemma 3 wants pieces for images, which a tokenizer trained here has not
            warnings.warn(f"KerasHub does not take this tokenizer, its model goes without one: {error}", stacklevel=2)
    return getattr(keras_hub.models, f"{stem}CausalLM")(backbone=backbone, preprocessor=preprocessor)


def config_of(backbone: Any) -> GemmaConfig:
    """The model that KerasHub's backbone is.

    Raises:
        CheckpointError: it has a vision encoder, bidirectional attention, or scaled positions in local layers.
    """
    theirs = backbone.get_config()
    is_gemma3 = type(backbone).__name__ == "Gemma3Backbone"
    if getattr(backbone, "vision_encoder", None) is not None:
        raise CheckpointError(f"{type(backbone).__name__}: only the text decoder is read; this one has images")
    theirs = {name: value for name, value in theirs.items() if name not in ("name", "trainable", "dtype")}
    try:
        return config_of_arguments(theirs, is_gemma3)
    except (CheckpointError, TypeError) as error:
        raise CheckpointError(f"{type(backbone).__name__}: {error}") from error


def build(config: GemmaConfig, dtype: str = "float32") -> Any:
    """KerasHub's backbone of these sizes, its weights still random.

    Raises:
        CheckpointError: KerasHub's classes have no such model.
    """
    import keras_hub

    pattern = WINDOW_PATTERN.get(config.family)
    windows = any(config.local_layers)
    by_head, by_width = config.head_dim**-0.5, (config.hidden_dim / config.num_query_heads) ** -0.5
    rules = {
        "query_scale": math.isclose(config.query_scale, by_head) or math.isclose(config.query_scale, by_width),  # type: ignore[arg-type]
        "local_layers": not windows
        or (pattern is not None and config.local_layers == every_nth_global(config.num_layers, pattern)),
        "rope_theta": config.rope_theta == (GEMMA3_BASES[0] if config.family == "gemma3" else 1e4),
        "local_rope_theta": not windows or config.family != "gemma3" or config.local_rope_theta == GEMMA3_BASES[1],
        "rope_scale": config.rope_scale == 1.0 or config.family == "gemma3",
    }
    for name, holds in rules.items():
        if not holds:
            raise CheckpointError(f"KerasHub's {config.family} has no such model: {name}={getattr(config, name)!r}")
    shared: dict[str, Any] = {
        "vocabulary_size": config.vocabulary_size, "num_layers": config.num_layers,
        "num_query_heads": config.num_query_heads,
        "num_key_value_heads": config.num_key_value_heads, "hidden_dim": config.hidden_dim, "head_dim": config.head_dim,
        "query_head_dim_normalize": math.isclose(config.query_scale, by_head),  # type: ignore[arg-type]
        "use_post_ffw_norm": config.use_post_norms, "use_post_attention_norm": config.use_post_norms,
        "attention_logit_soft_cap": config.attention_logit_soft_cap,
        "final_logit_soft_cap": config.final_logit_soft_cap,
        "use_sliding_window_attention": windows, "layer_norm_epsilon": config.norm_epsilon, "dtype": dtype,
    }  # fmt: skip
    if windows:
        shared["sliding_window_size"] = config.sliding_window
    if config.family == "gemma3":
        backbone = keras_hub.models.Gemma3Backbone(
            **shared, image_size=None, intermediate_dim=config.intermediate_dim,
            use_query_key_norm=config.use_query_key_norm, global_rope_scaling_factor=config.rope_scale,
        )  # fmt: skip
    else:
        backbone = keras_hub.models.GemmaBackbone(**shared, intermediate_dim=2 * config.intermediate_dim)
    for layer in backbone.transformer_layers:
        # KerasHub's block forgets the argument (seen in 0.32), and computes Gemma 2 27B with another attention scale
        # than its config says.
        layer.attention.query_head_dim_normalize = shared["query_head_dim_normalize"]
    return backbone


def weights_of(backbone: Any) -> StoredWeights:
    """The weights of KerasHub's backbone in our layout, LoRA merged into the kernels that have it."""

    def reader(name: str, layer: Any, shape: tuple[int, int]) -> Reader:
        def read(dtype: np.dtype | None) -> np.ndarray:
            # EinsumDense's `kernel` is the sum with its LoRA, so it is asked for only now.
            values = np.asarray(host_array(getattr(layer, _attribute(name))))
            return _to_two_axes(name, values, shape).astype(dtype or values.dtype, copy=False)

        return read

    readers = {name: reader(name, layer, shape) for name, layer, shape in _layers(backbone, config_of(backbone))}
    return StoredWeights(type(backbone).__name__, readers)


def assign(backbone: Any, weights: Iterable[tuple[str, np.ndarray]]) -> None:
    """Put (our name, array in our layout) into KerasHub's backbone.

    Raises:
        CheckpointError: a weight that it does not have, or one that is missing.
    """
    # `_kernel` is the variable behind EinsumDense's `kernel`.
    written = {"kernel": "_kernel"}
    layers = {name: layer for name, layer, _ in _layers(backbone, config_of(backbone))}
    variables = {
        name: getattr(layer, written.get(_attribute(name), _attribute(name))) for name, layer in layers.items()
    }
    missing = set(variables)
    for name, values in weights:
        if name not in variables:
            raise CheckpointError(f"{name!r} is no weight of KerasHub's {type(backbone).__name__}")
        variables[name].assign(_to_three_axes(name, values, variables[name].shape))
        missing.discard(name)
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights of KerasHub's {type(backbone).__name__} are missing, the first is {min(missing)!r}"
        )


def _layers(backbone: Any, config: GemmaConfig) -> Iterator[tuple[str, Any, tuple[int, int]]]:
    """(our name, their layer, (inputs, outputs) of attention kernels) in our order."""
    yield "embedding", backbone.token_embedding, (0, 0)
    queries, keys = config.num_query_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    sizes = {
        "q_proj": (config.hidden_dim, queries),
        "k_proj": (config.hidden_dim, keys),
        "v_proj": (config.hidden_dim, keys),
        "o_proj": (queries, config.hidden_dim),
    }
    for i, layer in enumerate(backbone.transformer_layers):
        for ours, theirs in _NORMS.items():
            if getattr(layer, theirs, None) is not None:
                yield f"layers.{i}.{ours}", getattr(layer, theirs), (0, 0)
        if config.use_query_key_norm:
            for ours, theirs in _QUERY_KEY_NORMS.items():
                yield f"layers.{i}.{ours}", getattr(layer.attention, theirs), (0, 0)
        for ours, theirs in _ATTENTION.items():
            yield f"layers.{i}.{ours}", getattr(layer.attention, theirs), sizes[ours]
        for ours, theirs in _FEED_FORWARD.items():
            yield f"layers.{i}.{ours}", getattr(layer, theirs), (0, 0)
    yield "final_norm", backbone.layer_norm, (0, 0)


def _attribute(name: str) -> str:
    """Which attribute of KerasHub's layer is the weight called `name`."""
    return "embeddings" if name == "embedding" else "scale" if is_norm(name) else "kernel"


def _to_two_axes(name: str, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(heads, d, h) → (d, heads * h) for queries, keys, values; (heads, h, d) → (heads * h, d) for the output."""
    if values.ndim != 3:
        return values
    return (values if name.endswith("o_proj") else values.transpose(1, 0, 2)).reshape(shape)


def _to_three_axes(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) != 3:
        return values
    if name.endswith("o_proj"):
        return values.reshape(shape)
    heads, width, head_dim = shape
    return values.reshape(width, heads, head_dim).transpose(1, 0, 2)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def host_array(variable: Any) -> Any:
    """A variable of KerasHub's as a numpy array."""
    import keras

    return keras.ops.convert_to_numpy(variable)


def stored_model(backbone: Any, tokenizer_proto: bytes | None, with_weights: bool = True) -> StoredModel:
    """KerasHub's backbone, and the SentencePiece model that came with it, as an opened model."""
    config = config_of(backbone)
    tokenizer = None if tokenizer_proto is None else GemmaTokenizer(tokenizer_proto, config.family)
    dtype = backbone.dtype_policy.variable_dtype
    stored = dtype if dtype in FLOAT_DTYPES else "float32"
    return StoredModel(config, weights_of(backbone) if with_weights else None, tokenizer, stored)


class KerasHub:
    """See `Format`."""

    description = "a KerasHub preset"
    suffix = None
    dtypes = FLOAT_DTYPES
    needs_keras = True

    def recognizes(self, source: str | Path) -> bool:
        """A preset's folder, or the handle of one on Kaggle or of KerasHub's own on the Hugging Face hub."""
        return str(source).startswith(_HANDLES) or is_preset(Path(source))

    def open(self, source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
        """See `Format.open`; KerasHub loads the weights in any case."""
        return stored_model(*open_preset(source), with_weights)

    def write(self, target: Path, model: StoredModel, dtype: str | None = None) -> str:
        """See `Format.write`."""
        if model.reward is not None:
            raise InputError("a reward model; KerasHub has no scalar head. Convert it to a folder")
        dtype = dtype or model.dtype
        proto = None if model.tokenizer is None else model.tokenizer.model_proto
        task_of(model.config, model.weights or (), proto, dtype).save_to_preset(str(target))
        return dtype


FORMAT = KerasHub()
