"""The arguments of KerasHub's `GemmaBackbone` and `Gemma3Backbone`, as our configuration. Imports neither Keras nor
KerasHub.

KerasHub counts both feed-forward branches of Gemma 1 and 2, and knows two attention scales, one window pattern a family
and, for Gemma 3, one pair of rotary bases.
"""

from collections.abc import Mapping
from typing import Any

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import GemmaConfig, every_nth_global

WINDOW_PATTERN = {"gemma2": 2, "gemma3": 6}
GEMMA3_BASES = (1e6, 1e4)

_NEEDED = (
    "vocabulary_size", "num_layers", "num_query_heads", "num_key_value_heads", "hidden_dim", "intermediate_dim",
    "head_dim",
)  # fmt: skip
_DEFAULTS = {
    "query_head_dim_normalize": True,
    "use_post_ffw_norm": False,
    "use_post_attention_norm": False,
    "attention_logit_soft_cap": None,
    "final_logit_soft_cap": None,
    "use_sliding_window_attention": False,
    "layer_norm_epsilon": 1e-6,
    "dropout": 0,
}
# What only Gemma 3 takes; any of them says that it is one.
_GEMMA3_DEFAULTS = {
    "image_size": None,
    "use_query_key_norm": True,
    "local_rope_scaling_factor": 1.0,
    "global_rope_scaling_factor": 1.0,
    "vision_encoder": None,
    "use_bidirectional_attention": False,
    "is_embedding_model": False,
    "pooling_intermediate_dim": None,
    "embedding_dim": None,
}
_REFUSED = {
    "vision_encoder": "only the text decoder is here",
    "use_bidirectional_attention": "a decoder looks back only",
    "is_embedding_model": "a language model has no pooling",
    "dropout": "only an adapter has dropout, see enable_lora",
}


def config_of_arguments(arguments: Mapping[str, Any], is_gemma3: bool | None = None) -> GemmaConfig:
    """The model that KerasHub would make of these arguments.

    Args:
        arguments: of its constructors, those with a default may be left out. `sliding_window_size` is 4096 by default,
            of Gemma 3 1024.
        is_gemma3: default: whether one of them is an argument of `Gemma3Backbone` alone.

    Raises:
        TypeError: an argument that neither class has, or a size is missing.
        CheckpointError: a vision encoder, bidirectional attention, dropout, norms after one half of a block alone, or
            scaled positions in local layers.
    """
    known = {**dict.fromkeys(_NEEDED), **_DEFAULTS, **_GEMMA3_DEFAULTS, "sliding_window_size": None}
    unknown = [name for name in arguments if name not in known]
    missing = [name for name in _NEEDED if name not in arguments]
    if unknown or missing:
        what = f"no argument {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise TypeError(f"A backbone takes a GemmaConfig, or KerasHub's arguments: {what}. Expected {', '.join(known)}")
    if is_gemma3 is None:
        is_gemma3 = any(name in _GEMMA3_DEFAULTS for name in arguments)
    theirs: dict[str, Any] = {**_DEFAULTS, **_GEMMA3_DEFAULTS, **arguments}
    _refuse_what_no_gemma_has(theirs)
    family = "gemma3" if is_gemma3 else "gemma2" if theirs["use_post_ffw_norm"] else "gemma"
    layers, windows = theirs["num_layers"], theirs["use_sliding_window_attention"]
    width_a_head = theirs["hidden_dim"] / theirs["num_query_heads"]
    window = theirs.get("sliding_window_size") or (1024 if is_gemma3 else 4096)
    # A Gemma 2 without norms after its blocks has the window pattern all the same.
    pattern = WINDOW_PATTERN["gemma3" if is_gemma3 else "gemma2"]
    return GemmaConfig(
        family=family,
        **{name: theirs[name] for name in _NEEDED if name != "intermediate_dim"},
        intermediate_dim=theirs["intermediate_dim"] if is_gemma3 else theirs["intermediate_dim"] // 2,
        query_scale=(theirs["head_dim"] if theirs["query_head_dim_normalize"] else width_a_head) ** -0.5,
        use_post_norms=bool(theirs["use_post_ffw_norm"]),
        use_query_key_norm=bool(is_gemma3 and theirs["use_query_key_norm"]),
        attention_logit_soft_cap=theirs["attention_logit_soft_cap"],
        final_logit_soft_cap=theirs["final_logit_soft_cap"],
        sliding_window=window if windows else None,
        local_layers=every_nth_global(layers, pattern) if windows else (),
        rope_theta=GEMMA3_BASES[0] if is_gemma3 else 1e4,
        local_rope_theta=GEMMA3_BASES[1] if is_gemma3 else None,
        rope_scale=theirs["global_rope_scaling_factor"] if is_gemma3 else 1.0,
        norm_epsilon=theirs["layer_norm_epsilon"],
        context_length=131_072 if is_gemma3 else 8192,
    )


def _refuse_what_no_gemma_has(theirs: Mapping[str, Any]) -> None:
    for name, reason in _REFUSED.items():
        if theirs[name]:
            raise CheckpointError(f"{name}={theirs[name]!r}: {reason}")
    if theirs["local_rope_scaling_factor"] != 1.0:
        raise CheckpointError(f"local_rope_scaling_factor={theirs['local_rope_scaling_factor']!r}: no Gemma has that")
    if bool(theirs["use_post_ffw_norm"]) != bool(theirs["use_post_attention_norm"]):
        raise CheckpointError("use_post_ffw_norm and use_post_attention_norm differ: Gemma has both or neither")
