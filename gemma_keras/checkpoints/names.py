"""Names, shapes and layouts of the weights: ours, Hugging Face's and GGUF's.

Our names follow what a weight does (`layers.3.feed_forward_norm`), so that one name means one thing in all Gemma
generations; Hugging Face's `post_attention_layernorm` is the norm before the feed-forward in Gemma 1 and the norm after
attention in Gemma 2 and 3. Projections are kept in Keras' layout (in, out), which is the transpose of both file
formats'. No rotary permutation is needed.
"""

import re

from gemma_keras.config import GemmaConfig

_PROJECTIONS = {
    "q_proj": ("self_attn.q_proj", "attn_q"),
    "k_proj": ("self_attn.k_proj", "attn_k"),
    "v_proj": ("self_attn.v_proj", "attn_v"),
    "o_proj": ("self_attn.o_proj", "attn_output"),
    "gate_proj": ("mlp.gate_proj", "ffn_gate"),
    "up_proj": ("mlp.up_proj", "ffn_up"),
    "down_proj": ("mlp.down_proj", "ffn_down"),
}
_QUERY_KEY_NORMS = {"query_norm": ("self_attn.q_norm", "attn_q_norm"), "key_norm": ("self_attn.k_norm", "attn_k_norm")}
_PRE_NORMS_ALONE = {
    "attention_norm": ("input_layernorm", "attn_norm"),
    "feed_forward_norm": ("post_attention_layernorm", "ffn_norm"),
}
_PRE_AND_POST_NORMS = {
    "attention_norm": ("input_layernorm", "attn_norm"),
    "post_attention_norm": ("post_attention_layernorm", "post_attention_norm"),
    "feed_forward_norm": ("pre_feedforward_layernorm", "ffn_norm"),
    "post_feed_forward_norm": ("post_feedforward_layernorm", "post_ffw_norm"),
}
_TOP_LEVEL = {
    "embedding": ("model.embed_tokens.weight", "token_embd.weight"),
    "final_norm": ("model.norm.weight", "output_norm.weight"),
    "score": ("score.weight", None),
}
# Where the text model sits in a folder: a task model, two generations of multimodal folders, a bare backbone.
_TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "model.", "")
_LAYER = re.compile(r"layers\.(0|[1-9][0-9]{0,5})\.(.+)\Z")
_GGUF_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.(.+)\Z")


def _layer_table(config: GemmaConfig) -> dict[str, tuple[str, str]]:
    """Our name inside a layer → (Hugging Face's, GGUF's), both without `.weight`."""
    norms = _PRE_AND_POST_NORMS if config.use_post_norms else _PRE_NORMS_ALONE
    return {**norms, **(_QUERY_KEY_NORMS if config.use_query_key_norm else {}), **_PROJECTIONS}


def expected_shapes(config: GemmaConfig, with_score: bool = False) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of a model, in our layout, in the order in which files hold them.

    Args:
        config: the model's sizes.
        with_score: also the reward head `score` (d, 1).

    Returns:
        our name → shape. Embedding (v, d), norms (d,) or (h,), projections (in, out).
    """
    d, f, h = config.hidden_dim, config.intermediate_dim, config.head_dim
    queries, keys = config.num_query_heads * h, config.num_key_value_heads * h
    inside = {
        "query_norm": (h,), "key_norm": (h,), "q_proj": (d, queries), "k_proj": (d, keys), "v_proj": (d, keys),
        "o_proj": (queries, d), "gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocabulary_size, d)}
    names = list(_layer_table(config))
    for i in range(config.num_layers):
        shapes.update({f"layers.{i}.{name}": inside.get(name, (d,)) for name in names})
    shapes["final_norm"] = (d,)
    if with_score:
        shapes["score"] = (d, 1)
    return shapes


def is_transposed(our_name: str) -> bool:
    """Whether files hold the transpose of the weight called `our_name`: projections and the reward head."""
    return our_name == "score" or our_name.rsplit(".", 1)[-1] in _PROJECTIONS


def is_norm(our_name: str) -> bool:
    """Whether `our_name` is the scale of an RMSNorm, which GGUF stores as 1 + scale."""
    return our_name.endswith("_norm")


def file_shape(our_name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape as files hold it (Hugging Face, and GGUF with its dimensions reversed into numpy's order)."""
    return shape[::-1] if is_transposed(our_name) else shape


def hugging_face_name(our_name: str, config: GemmaConfig) -> str:
    """Hugging Face's tensor name for `our_name`; KeyError for a name that the model does not have."""
    if our_name in _TOP_LEVEL:
        return _TOP_LEVEL[our_name][0]
    layer, inside = _split(our_name)
    return f"model.layers.{layer}.{_layer_table(config)[inside][0]}.weight"


def our_name_from_hugging_face(name: str, config: GemmaConfig) -> str | None:
    """Our name for a Hugging Face tensor name, whichever prefix its folder uses, or None for a tensor that is no weight
    of `config`."""
    if name == "score.weight":
        return "score"
    for prefix in _TEXT_PREFIXES:
        if name.startswith(prefix) and name.endswith(".weight"):
            found = _reverse(name[len(prefix) : -len(".weight")], config, column=0)
            if found is not None:
                return found
    return None


def gguf_name(our_name: str, config: GemmaConfig) -> str:
    """GGUF's tensor name for `our_name`; KeyError for a name that GGUF does not have."""
    if our_name in _TOP_LEVEL:
        name = _TOP_LEVEL[our_name][1]
        if name is None:
            raise KeyError(our_name)
        return name
    layer, inside = _split(our_name)
    return f"blk.{layer}.{_layer_table(config)[inside][1]}.weight"


def our_name_from_gguf(name: str, config: GemmaConfig) -> str | None:
    """Our name for a GGUF tensor name, or None for a tensor that is no weight of `config`."""
    return _reverse(name.removesuffix(".weight"), config, column=1) if name.endswith(".weight") else None


def _split(our_name: str) -> tuple[int, str]:
    found = _LAYER.match(our_name)
    if found is None:
        raise KeyError(our_name)
    return int(found[1]), found[2]


def _reverse(stem: str, config: GemmaConfig, column: int) -> str | None:
    """Looks a name without prefix and without `.weight` up in column 0 (Hugging Face) or 1 (GGUF)."""
    top = (
        {"embed_tokens": "embedding", "norm": "final_norm"}
        if column == 0
        else {"token_embd": "embedding", "output_norm": "final_norm"}
    )
    if stem in top:
        return top[stem]
    found = (_LAYER if column == 0 else _GGUF_LAYER).match(stem)
    if found is None or int(found[1]) >= config.num_layers:
        return None
    for ours, theirs in _layer_table(config).items():
        if theirs[column] == found[2]:
            return f"layers.{found[1]}.{ours}"
    return None
