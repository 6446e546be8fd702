"""Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`, read by peft, transformers, vLLM
and us.

Arrays in and out are numpy; nothing here imports Keras.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints import names
from gemma_keras.checkpoints import safetensors_file as st
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.hugging_face_reader import read_json
from gemma_keras.checkpoints.interrupted_saves import finish_save
from gemma_keras.config import GemmaConfig
from gemma_keras.files import write_text
from gemma_keras.json_values import finite_number, parse, shown
from gemma_keras.lora_options import TARGETS, LoraOptions

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_METADATA_KEY = "adapter_config"
_PREFIX = "base_model.model."
_SCORE = f"{_PREFIX}score.weight"
# Variants of LoRA that change the formula, and what they are when absent.
_UNSUPPORTED = {
    "use_dora": False, "fan_in_fan_out": False, "bias": "none", "lora_bias": False, "rank_pattern": {},
    "alpha_pattern": {}, "layer_replication": None, "trainable_token_indices": None, "target_parameters": None,
    "alora_invocation_tokens": None, "use_qalora": False, "use_bdlora": None, "arrow_config": None, "kasa_config": None,
    "velora_config": None, "monteclora_config": None,
}  # fmt: skip

# Initialisations that take a part of the base weights away.
_OTHER_BASES = ("pissa", "corda", "olora", "loftq", "lora_ga")


def write_adapter(
    folder: str | Path,
    config: GemmaConfig,
    options: LoraOptions,
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    base: str | None = None,
    score: np.ndarray | None = None,
) -> None:
    """Write an adapter's files, each of which appears under its name when it is complete.

    Args:
        folder: made if it does not exist.
        config: the base model. options: the adapter.
        pairs: (full name such as "layers.0.q_proj", a (inputs, r), b (r, outputs)), every adapted projection once.
        base: path or hub id of the base model, for tools that load both.
        score: (d, 1), a reward model's head, which is trained in full.

    Raises:
        CheckpointError: a projection too many or missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder / WEIGHTS_FILE, config, options, pairs, score)
    write_text(folder / CONFIG_FILE, json.dumps(_config_table(options, base, score is not None), indent=2) + "\n")


def write_file(
    file: str | Path, config: GemmaConfig, options: LoraOptions, pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]
) -> None:
    """Write an adapter as one safetensors file: the tensors that `write_adapter` writes, and what would be
    `adapter_config.json` in the header.

    Args, errors: as `write_adapter`.
    """
    table = json.dumps(_config_table(options, None, False))
    _write_weights(Path(file), config, options, pairs, None, {_METADATA_KEY: table})


def read_file(file: str | Path, config: GemmaConfig) -> tuple[LoraOptions, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Read what `write_file` wrote; returns and errors as `read_adapter`, without a head."""
    file = Path(file)
    text = st.read_metadata(file).get(_METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{file}: its header holds no {_METADATA_KEY}. Expected a file of save_lora_weights; of a folder that PEFT "
            "wrote, call load_adapter(folder)."
        )
    try:
        table = parse(text)
    except ValueError as error:
        raise CheckpointError(f"{file}: {_METADATA_KEY} in its header is {error}.") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{file}: {_METADATA_KEY} in its header must be an object. Received: {shown(table)}")
    options, arrays, _ = _read_weights(file, table, file, config)
    return options, arrays


def _write_weights(file, config, options, pairs, score=None, metadata=None) -> None:
    shapes = {}
    for full_name, (inputs, outputs) in _adapted_shapes(config, options).items():
        first, second = _tensor_names(full_name, config)
        shapes[first], shapes[second] = (options.rank, inputs), (outputs, options.rank)
    if score is not None:
        shapes[_SCORE] = (1, config.hidden_dim)
    with st.SafetensorsWriter(file, shapes, "float32", metadata) as writer:
        for full_name, a, b in pairs:
            for name, values in zip(_tensor_names(full_name, config), (a, b), strict=True):
                writer.write(name, values.T)
        if score is not None:
            writer.write(_SCORE, score.T)


def _config_table(options: LoraOptions, base: str | None, has_score: bool) -> dict[str, Any]:
    alpha = options.alpha or options.rank
    return {
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None if options.layers is None else "layers",
        "layers_to_transform": None if options.layers is None else list(options.layers),
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": options.dropout,
        "modules_to_save": ["score"] if has_score else None,
        "peft_type": "LORA",
        "r": options.rank,
        "revision": None,
        "target_modules": list(options.targets),
        "task_type": "SEQ_CLS" if has_score else "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": options.rank_stabilized,
    }


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter and no model of its own; as `formats.recognize` otherwise."""
    finish_save(folder)
    return (Path(folder) / CONFIG_FILE).is_file() and not (Path(folder) / "config.json").is_file()


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The base model that an adapter's folder names, and its revision on the hub, None for the newest.

    Raises:
        CheckpointError: it names none.
    """
    file = Path(folder) / CONFIG_FILE
    table = read_json(file)
    base, revision = table.get("base_model_name_or_path"), table.get("revision")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{file}: `base_model_name_or_path` names no base model. Received: {shown(base)}. Write it there, or "
            "open the base model and give it this adapter with load_adapter."
        )
    return base, revision if isinstance(revision, str) and revision else None


def read_adapter(
    folder: str | Path, config: GemmaConfig
) -> tuple[LoraOptions, dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray | None]:
    """An adapter's folder, ours or another tool's, checked against the base model before anything is allocated.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        config: the base model.

    Returns:
        options; full name → (a (inputs, r), b (r, outputs)), float32; the head (d, 1) where the adapter holds one, else
        None.

    Raises:
        CheckpointError: no such files, another kind of adapter, tensors that do not fit the base model.
    """
    folder = Path(folder)
    finish_save(folder)
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}. Expected a folder that PEFT or save_adapter wrote.")
    table = read_json(file)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        pickle = " adapter_model.bin is a pickle and is not opened." if (folder / "adapter_model.bin").exists() else ""
        raise CheckpointError(f"{weights}: missing.{pickle} Save the adapter as safetensors.")
    return _read_weights(weights, table, file, config)


def _read_weights(weights: Path, table: Mapping[str, Any], file: Path, config: GemmaConfig):
    _check_kind(table, file)
    entries = st.read_header(weights)
    found: dict[str, dict[int, st.TensorEntry]] = {}
    score = None
    for name, entry in entries.items():
        if name == _SCORE:
            score = entry
            continue
        full_name, side = _projection_of(name, config)
        if full_name is None:
            raise CheckpointError(
                f"{weights}: tensor {name[:200]!r} is no LoRA weight of a {config.family} with {config.num_layers} "
                "layers."
            )
        found.setdefault(full_name, {})[side] = entry
    options = _options(table, file, weights, found, config)
    wanted = _adapted_shapes(config, options)
    for full_name, (inputs, outputs) in wanted.items():
        sides = found.get(full_name, {})
        for side, shape in ((0, (options.rank, inputs)), (1, (outputs, options.rank))):
            if side not in sides:
                missing = _tensor_names(full_name, config)[side]
                raise CheckpointError(
                    f"{weights}: tensor {missing!r} is missing. Every adapted layer must have the same targets."
                )
            _check(sides[side], shape)
    if score is not None:
        _check(score, (1, config.hidden_dim))
    arrays = {name: (_read(found[name][0]), _read(found[name][1])) for name in wanted}
    return options, arrays, None if score is None else _read(score)


def _read(entry: st.TensorEntry) -> np.ndarray:
    """The transpose of a file's tensor, float32."""
    return st.read_tensor(entry, dtype=np.dtype(np.float32)).T


def _check_kind(table: Mapping[str, Any], file: Path) -> None:
    if table.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: expected `peft_type` LORA. Received: {shown(table.get('peft_type'))}")
    for key, plain in _UNSUPPORTED.items():
        if table.get(key, plain) not in (plain, None):
            raise CheckpointError(
                f"{file}: `{key}` changes what LoRA computes and is not supported. Received: {shown(table[key])}"
            )
    start = table.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASES):
        raise CheckpointError(
            f"{file}: `init_lora_weights` {start[:100]!r} has changed the base model's weights, which the base model "
            "here does not have. Convert the adapter: peft's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)."
        )
    # PEFT names both for every classifier, whichever the model has.
    saved = table.get("modules_to_save") or []
    if not isinstance(saved, list) or any(name not in ("score", "classifier") for name in saved):
        raise CheckpointError(
            f"{file}: `modules_to_save` may name the reward head `score` only, in a list. Received: {shown(saved)}"
        )


def _options(
    table: Mapping[str, Any], file: Path, weights: Path, found: Mapping[str, Any], config: GemmaConfig
) -> LoraOptions:
    if not found:
        raise CheckpointError(f"{weights}: no LoRA weights in it.")
    layers = {int(name.split(".")[1]) for name in found}
    targets = {name.rsplit(".", 1)[-1] for name in found}
    alpha, dropout = _number(table, file, "lora_alpha", 8), _number(table, file, "lora_dropout", 0)
    rank, rank_stabilized = table.get("r", 8), table.get("use_rslora") or False
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise CheckpointError(f"{file}: `r` must be an integer >= 1. Received: {shown(rank)}")
    if rank_stabilized not in (False, True):
        raise CheckpointError(f"{file}: `use_rslora` must be true or false. Received: {shown(rank_stabilized)}")
    try:
        return LoraOptions(
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            rank_stabilized=rank_stabilized,
            targets=tuple(targets),
            layers=None if layers == set(range(config.num_layers)) else tuple(layers),
        )
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _number(table: Mapping[str, Any], file: Path, key: str, default: float) -> float:
    value = default if table.get(key) is None else table[key]
    number = finite_number(value)
    if number is None:
        raise CheckpointError(f"{file}: `{key}` must be a number. Received: {shown(value)}")
    return number


def _adapted_shapes(config: GemmaConfig, options: LoraOptions) -> dict[str, tuple[int, int]]:
    return {
        name: shape  # type: ignore[misc]
        for name, shape in names.expected_shapes(config).items()
        if name.rsplit(".", 1)[-1] in TARGETS and options.applies_to(name)
    }


def _tensor_names(full_name: str, config: GemmaConfig) -> tuple[str, str]:
    stem = _PREFIX + names.hugging_face_name(full_name, config).removesuffix(".weight")
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def _projection_of(name: str, config: GemmaConfig) -> tuple[str | None, int]:
    for side, ending in enumerate((".lora_A.weight", ".lora_B.weight")):
        if name.startswith(_PREFIX) and name.endswith(ending):
            ours = names.our_name_from_hugging_face(name[len(_PREFIX) : -len(ending)] + ".weight", config)
            if ours is not None and ours.rsplit(".", 1)[-1] in TARGETS:
                return ours, side
    return None, 0


def _check(entry: st.TensorEntry, shape: tuple[int, int]) -> None:
    if entry.shape != shape or entry.code not in st.FLOAT_CODES:
        raise CheckpointError(
            f"{entry.file}: tensor {entry.name!r}: expected floats of shape {shape} by {CONFIG_FILE}. Received: "
            f"{entry.code} {entry.shape}"
        )
