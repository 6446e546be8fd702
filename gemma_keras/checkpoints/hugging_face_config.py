"""`config.json` of Hugging Face's Gemma classes ↔ `GemmaConfig`, in the dialects of transformers 4 and 5.

Version 4 writes `rope_theta`, `rope_local_base_freq`, `rope_scaling`, `sliding_window_pattern`, `torch_dtype`; version
5 writes `rope_parameters` (nested per layer type for Gemma 3), `layer_types`, `dtype`. Both are read; what is written
holds both, and each version ignores the other's keys. Multimodal Gemma 3 nests the text model in `text_config` and
leaves out what equals the class's defaults, hence the tables of defaults.
"""

import math
from collections.abc import Mapping
from typing import Any

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import GemmaConfig, every_nth_global
from gemma_keras.json_values import finite_number, shown

# model_type in config.json → family. "gemma3" is the multimodal class around a gemma3_text.
FAMILY_OF_MODEL_TYPE = {"gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "gemma3": "gemma3"}
_CLASS_STEM = {"gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3"}
# Rows that hold no token of the tokenizer, by embedding rows: the Flax export's padding, and Gemma 3's image token with
# padding.
PADDED_VOCABULARIES = {256_128: 256_000, 262_208: 262_144}
_MOST_LAYERS, _LARGEST_SIZE = 1000, 2**31 - 1

_SIZES = {  # Hugging Face's key → our field
    "vocab_size": "vocabulary_size", "hidden_size": "hidden_dim", "intermediate_size": "intermediate_dim",
    "num_hidden_layers": "num_layers", "num_attention_heads": "num_query_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim", "max_position_embeddings": "context_length",
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {
        "vocab_size": 256_000, "hidden_size": 3072, "intermediate_size": 24_576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192,
        "rope_theta": 10_000.0,
    },
    "gemma2": {
        "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
        "rope_theta": 10_000.0, "sliding_window": 4096, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "sliding_window_pattern": 2,
    },
    "gemma3": {
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "sliding_window": 4096,
        "query_pre_attn_scalar": 256, "sliding_window_pattern": 6,
    },
}  # fmt: skip


def config_from_dict(table: Mapping[str, Any], where: str = "config.json") -> GemmaConfig:
    """The model that a parsed `config.json` describes.

    Args:
        table: the file's content, either dialect.
        where: what to call it in errors.

    Raises:
        CheckpointError: another kind of model, a switch that Gemma's text models do not have, a wrong type, or sizes
            that do not fit.
    """
    model_type = table.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILY_OF_MODEL_TYPE:
        raise CheckpointError(
            f"{where}: `model_type` must be one of {', '.join(FAMILY_OF_MODEL_TYPE)}. Received: {shown(model_type)}"
        )
    family = FAMILY_OF_MODEL_TYPE[model_type]
    if model_type == "gemma3":
        nested = table.get("text_config")
        if not isinstance(nested, Mapping):
            raise CheckpointError(
                f"{where}: a multimodal gemma3 needs the object `text_config`. Received: {shown(nested)}"
            )
        table = nested
    values = _Values(table, _DEFAULTS[family], where)
    _check_switches(values, family)
    fields: dict[str, Any] = {ours: values.size(theirs) for theirs, ours in _SIZES.items()}
    layers = fields["num_layers"]
    if layers > _MOST_LAYERS:
        raise CheckpointError(f"{where}: `num_hidden_layers` must be at most {_MOST_LAYERS}. Received: {layers}")
    fields["vocabulary_size"] = PADDED_VOCABULARIES.get(fields["vocabulary_size"], fields["vocabulary_size"])
    fields["norm_epsilon"] = values.number("rms_norm_eps", 1e-6)
    fields.update(
        {
            name: values.token_id(name, default)
            for name, default in (("pad_token_id", 0), ("eos_token_id", 1), ("bos_token_id", 2))
        }
    )
    fields.update(_rope(values, family))
    if family != "gemma":
        fields["query_scale"] = values.number("query_pre_attn_scalar") ** -0.5
        fields["attention_logit_soft_cap"] = values.optional_number("attn_logit_softcapping")
        fields["final_logit_soft_cap"] = values.optional_number("final_logit_softcapping")
        window = None if values.get("sliding_window") is None else values.size("sliding_window")
        fields["sliding_window"] = window
        fields["local_layers"] = _local_layers(values, layers) if window is not None else ()
    try:
        return GemmaConfig(
            family=family, use_post_norms=family != "gemma", use_query_key_norm=family == "gemma3", **fields
        )
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


class _Values:
    """Typed access to one JSON object with a class's defaults behind it; a key that is there with null counts as
    given."""

    def __init__(self, table: Mapping[str, Any], defaults: Mapping[str, Any], where: str):
        self.table, self.where = {**defaults, **table}, where
        self.given = table

    def get(self, key: str) -> Any:
        return self.table.get(key)

    def size(self, key: str) -> int:
        value = self.table[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_SIZE:
            raise CheckpointError(
                f"{self.where}: `{key}` must be an integer from 1 to {_LARGEST_SIZE}. Received: {shown(value)}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.table.get(key, default)
        return _positive(value, f"{self.where}: `{key}`")

    def optional_number(self, key: str) -> float | None:
        return None if self.table.get(key) is None else self.number(key)

    def token_id(self, key: str, default: int) -> int:
        value = self.table.get(key)
        if (
            isinstance(value, list) and value
        ):  # several stop ids: the first is <eos>, the turn's end is the tokenizer's matter
            value = value[0]
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_SIZE:
            raise CheckpointError(f"{self.where}: `{key}` must be a token id. Received: {shown(value)}")
        return value


def _positive(value: Any, what: str) -> float:
    number = finite_number(value)
    if number is None or number <= 0:
        raise CheckpointError(f"{what} must be a number > 0. Received: {shown(value)}")
    return number


def _check_switches(values: _Values, family: str) -> None:
    """Refuses what the class could do and no Gemma text model does: a model read wrongly is worse than one not read."""
    for key, wanted in (
        ("use_bidirectional_attention", False),
        ("attention_bias", False),
        ("tie_word_embeddings", True),
    ):
        value = values.get(key)
        if value is not None and value is not wanted:
            raise CheckpointError(
                f"{values.where}: `{key}` must be {str(wanted).lower()}, as in every Gemma 1, 2, 3 text model. "
                f"Received: {shown(value)}"
            )
    activations = ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new") + (("gelu",) if family == "gemma" else ())
    for key in ("hidden_act", "hidden_activation"):
        value = values.get(key)
        if value is not None and value not in activations:
            raise CheckpointError(
                f"{values.where}: `{key}` must be one of {', '.join(activations)}. Received: {shown(value)}"
            )


def _local_layers(values: _Values, layers: int) -> tuple[bool, ...]:
    types = values.get("layer_types")
    if types is not None:
        known = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or len(types) != layers or any(kind not in known for kind in types):
            raise CheckpointError(
                f"{values.where}: `layer_types` needs {layers} entries from {known}. Received: {shown(types)}"
            )
        return tuple(kind == "sliding_attention" for kind in types)
    key = "_sliding_window_pattern" if "_sliding_window_pattern" in values.given else "sliding_window_pattern"
    return every_nth_global(layers, values.size(key))


def _rope(values: _Values, family: str) -> dict[str, float]:
    """Bases and scale. Keys of version 5 win over those of version 4, as in transformers."""
    parameters = values.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise CheckpointError(f"{values.where}: `rope_parameters` must be an object. Received: {shown(parameters)}")
    legacy = {"rope_theta": values.get("rope_theta"), **(_object(values, values.get("rope_scaling"), "rope_scaling"))}
    if family == "gemma3":
        table = {**legacy, **_object(values, parameters.get("full_attention"), "rope_parameters.full_attention")}
        local = {"rope_theta": values.get("rope_local_base_freq")}
        local.update(_object(values, parameters.get("sliding_attention"), "rope_parameters.sliding_attention"))
        if _rope_scale(values, local) != 1.0:
            raise CheckpointError(
                f"{values.where}: rotary scaling of sliding layers is in no Gemma. Received: {shown(local)}"
            )
    else:
        table = local = {**legacy, **parameters}
    scale = _rope_scale(values, table)
    if family == "gemma2" and scale != 1.0:
        raise CheckpointError(f"{values.where}: rotary scaling is in no Gemma 2. Received: factor={scale}")
    return {
        "rope_theta": _positive(table["rope_theta"], f"{values.where}: `rope_theta`"),
        "local_rope_theta": _positive(local["rope_theta"], f"{values.where}: `rope_theta` of sliding layers"),
        "rope_scale": scale,
    }


def _object(values: _Values, value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{values.where}: `{name}` must be an object or null. Received: {shown(value)}")
    return dict(value)


def _rope_scale(values: _Values, table: Mapping[str, Any]) -> float:
    kind = table.get("rope_type", table.get("type", "default"))
    if kind == "default":
        return 1.0
    if kind != "linear":
        raise CheckpointError(
            f"{values.where}: `rope_type` must be default or linear, as in every Gemma. Received: {shown(kind)}"
        )
    return _positive(table.get("factor"), f"{values.where}: `factor` of the rotary scaling")


def config_to_dict(config: GemmaConfig, dtype: str, reward: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The `config.json` that both versions of transformers open as this model.

    Args:
        config: the model.
        dtype: the weights' dtype, "float32", "bfloat16" or "float16".
        reward: for a reward model, its `reward_mean` and `reward_std`; the file then describes a sequence classifier
            with one label.

    Raises:
        CheckpointError: a combination that Hugging Face's classes do not have, e.g. post norms in family "gemma".
    """
    _check_writable(config)
    family, is_gemma3 = config.family, config.family == "gemma3"
    stem = _CLASS_STEM[family]
    table: dict[str, Any] = {
        "architectures": [f"{stem}ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "dtype": dtype,
        "eos_token_id": config.eos_token_id,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "model_type": "gemma3_text" if is_gemma3 else family,
        "pad_token_id": config.pad_token_id,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "use_bidirectional_attention": False,
        "use_cache": True,
    }
    table.update({theirs: getattr(config, ours) for theirs, ours in _SIZES.items()})
    scaling = (
        {"rope_type": "linear", "factor": config.rope_scale} if config.rope_scale != 1.0 else {"rope_type": "default"}
    )
    table["rope_scaling"] = dict(scaling) if config.rope_scale != 1.0 else None
    table["rope_parameters"] = {**scaling, "rope_theta": config.rope_theta}
    if is_gemma3:
        table["rope_local_base_freq"] = config.local_rope_theta
        table["rope_parameters"] = {
            "full_attention": table["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope_theta},
        }
    if family != "gemma":
        table["attn_logit_softcapping"] = config.attention_logit_soft_cap
        table["final_logit_softcapping"] = config.final_logit_soft_cap
        table["query_pre_attn_scalar"] = _query_scalar(config)
        table["sliding_window"] = config.sliding_window
        table["layer_types"] = ["sliding_attention" if local else "full_attention" for local in config.local_layers]
        pattern = _window_pattern(config.local_layers)
        if is_gemma3 and pattern is not None:
            table["sliding_window_pattern"] = pattern
    if reward is not None:
        table["architectures"] = [f"{stem}{'Text' if is_gemma3 else ''}ForSequenceClassification"]
        # transformers takes num_labels from the length of id2label; the name itself is for readers and other tools.
        table.update({"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}})
        table.update({name: float(reward[name]) for name in ("reward_mean", "reward_std")})
    return dict(sorted(table.items()))


def _query_scalar(config: GemmaConfig) -> int:
    """transformers 5 types this key as an integer, so a scale that is not 1/sqrt(integer) has no place in its file."""
    exact = (config.query_scale or 0.0) ** -2
    if not math.isclose(round(exact), exact, rel_tol=1e-9):
        raise CheckpointError(
            f"config.json cannot hold query_scale={config.query_scale}: it must be n ** -0.5 for an integer n. n would "
            f"be {exact}"
        )
    return round(exact)


def _window_pattern(local_layers: tuple[bool, ...]) -> int | None:
    """Version 4's single number for the pattern, None where no number says it."""
    layers = len(local_layers)
    return next((n for n in (6, *range(1, layers + 2)) if every_nth_global(layers, n) == local_layers), None)


def _check_writable(config: GemmaConfig) -> None:
    family = config.family
    same_theta = config.local_rope_theta == config.rope_theta
    rules = {
        "use_post_norms": config.use_post_norms == (family != "gemma"),
        "use_query_key_norm": config.use_query_key_norm == (family == "gemma3"),
        "attention_logit_soft_cap": family != "gemma" or config.attention_logit_soft_cap is None,
        "final_logit_soft_cap": family != "gemma" or config.final_logit_soft_cap is None,
        "local_layers": family != "gemma" or not any(config.local_layers),
        "query_scale": family != "gemma" or math.isclose(config.query_scale or 0.0, config.head_dim**-0.5),
        "local_rope_theta": family == "gemma3" or same_theta,
        "rope_scale": family != "gemma2" or config.rope_scale == 1.0,
    }
    for name, holds in rules.items():
        if not holds:
            raise CheckpointError(
                f"Hugging Face's {family} has no such model: {name}={getattr(config, name)!r} does not go with "
                f"family={family!r}. Choose the family that has it."
            )
