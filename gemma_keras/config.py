"""What distinguishes one Gemma from another, as data.

Gemma 1, 2 and 3 (text) are one architecture here: post-norms, soft caps, window pattern, query and key norms,
rotary bases and attention scale are fields, never subclasses. This module imports no Keras, so that the command line
can read sizes at once.

Sources: arXiv:2403.08295 (Gemma), arXiv:2408.00118 (Gemma 2), arXiv:2503.19786 (Gemma 3), and the published
`config.json` files.
"""

import dataclasses
import difflib
from typing import Any

FAMILIES = ("gemma", "gemma2", "gemma3")


MAX_LAYERS = 1000
"""More are a mistake, and would be built one by one."""


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
    """Sizes and switches of one Gemma text model.

    Args:
        family: "gemma", "gemma2" or "gemma3": names the Hugging Face `model_type`, nothing else depends on it.
        vocabulary_size: rows of the embedding, v.
        num_layers: decoder blocks.
        num_query_heads: query heads, n. num_key_value_heads: heads of keys and values, k, must divide n.
        head_dim: width of a head, h, even.
        hidden_dim: width d. intermediate_dim: feed-forward width f **per branch** (the Gemma paper counts both).
        query_scale: what q is multiplied with; default `head_dim ** -0.5`.
        use_post_norms: RMSNorm after attention and feed-forward too (Gemma 2, 3).
        use_query_key_norm: RMSNorm over each head of q and k (Gemma 3).
        attention_logit_soft_cap, final_logit_soft_cap: `cap * tanh(x / cap)`, None for none (Gemma 2: 50, 30).
        sliding_window: a local layer sees keys with `query position - key position < sliding_window`.
        local_layers: bool per layer, True where the sliding window holds; () means no layer is local.
        rope_theta: rotary base of global layers. local_rope_theta: of local layers, default `rope_theta`.
        rope_scale: global positions are divided by it (Gemma 3 from 4B on: 8).
        context_length: positions the model was trained for; a figure for users, nothing is cut to it.
        norm_epsilon: of every RMSNorm.
        pad_token_id, eos_token_id, bos_token_id: ids shared by the whole family.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    family: str = "gemma"
    vocabulary_size: int = 256_000
    num_layers: int = 18
    num_query_heads: int = 8
    num_key_value_heads: int = 1
    head_dim: int = 256
    hidden_dim: int = 2048
    intermediate_dim: int = 16_384
    query_scale: float | None = None
    use_post_norms: bool = False
    use_query_key_norm: bool = False
    attention_logit_soft_cap: float | None = None
    final_logit_soft_cap: float | None = None
    sliding_window: int | None = None
    local_layers: tuple[bool, ...] = ()
    rope_theta: float = 10_000.0
    local_rope_theta: float | None = None
    rope_scale: float = 1.0
    context_length: int = 8192
    norm_epsilon: float = 1e-6
    pad_token_id: int = 0
    eos_token_id: int = 1
    bos_token_id: int = 2

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(f"`family` must be one of {FAMILIES}. Received: family={self.family!r}")
        sizes = (
            "vocabulary_size",
            "num_layers",
            "num_query_heads",
            "num_key_value_heads",
            "head_dim",
            "hidden_dim",
            "intermediate_dim",
        )
        for name in sizes:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"`num_layers` must be at most {MAX_LAYERS}. Received: num_layers={self.num_layers}")
        if self.num_query_heads % self.num_key_value_heads:
            raise ValueError(
                "`num_key_value_heads` must divide `num_query_heads`. Received: "
                f"num_query_heads={self.num_query_heads}, num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"`head_dim` must be even, rotary embedding turns pairs. Received: head_dim={self.head_dim}"
            )
        object.__setattr__(
            self, "local_layers", tuple(bool(x) for x in self.local_layers) or (False,) * self.num_layers
        )
        if len(self.local_layers) != self.num_layers:
            raise ValueError(
                f"`local_layers` needs one entry a layer, {self.num_layers}. Received: {len(self.local_layers)} entries"
            )
        if any(self.local_layers) and (self.sliding_window is None or self.sliding_window < 1):
            raise ValueError(f"Local layers need `sliding_window` >= 1. Received: sliding_window={self.sliding_window}")
        if self.query_scale is None:
            object.__setattr__(self, "query_scale", self.head_dim**-0.5)
        if self.local_rope_theta is None:
            object.__setattr__(self, "local_rope_theta", self.rope_theta)

    @classmethod
    def from_name(cls, name: str) -> "GemmaConfig":
        """The published size called `name`, e.g. "gemma_2b", "gemma3_270m", or KerasHub's "gemma_2b_en"."""
        key = size_name(name)
        if key is None:
            close = difflib.get_close_matches(name, PUBLISHED_SIZES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"Unknown Gemma size {name!r}.{hint} Known: {', '.join(PUBLISHED_SIZES)}")
        return PUBLISHED_SIZES[key]

    def replace(self, **changes: Any) -> "GemmaConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `GemmaConfig(**d)` reads them back."""
        values = dataclasses.asdict(self)
        values["local_layers"] = list(self.local_layers)
        return values

    @property
    def parameter_count(self) -> int:
        """Number of weights, the tied embedding counted once; computed from shapes."""
        d, f, h = self.hidden_dim, self.intermediate_dim, self.head_dim
        heads = self.num_query_heads + self.num_key_value_heads
        block = 2 * d * h * heads + 3 * d * f + 2 * d
        block += 2 * d * self.use_post_norms + 2 * h * self.use_query_key_norm
        return self.vocabulary_size * d + self.num_layers * block + d


def every_nth_global(num_layers: int, n: int) -> tuple[bool, ...]:
    """Window pattern "n - 1 local layers, then a global one": True is local."""
    return tuple((i + 1) % n != 0 for i in range(num_layers))


def _gemma(layers, width, forward, queries, kv) -> GemmaConfig:
    return GemmaConfig(
        num_layers=layers, hidden_dim=width, intermediate_dim=forward, num_query_heads=queries, num_key_value_heads=kv
    )


def _gemma2(layers, width, forward, queries, kv, head=256, scale=None) -> GemmaConfig:
    return _gemma(layers, width, forward, queries, kv).replace(
        family="gemma2", head_dim=head, query_scale=(scale or head) ** -0.5, use_post_norms=True,
        attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0,
        sliding_window=4096, local_layers=every_nth_global(layers, 2),
    )  # fmt: skip


def _gemma3(
    layers, width, forward, queries, kv, head=256, scale=None, window=1024, rope_scale=8.0, context=131_072
) -> GemmaConfig:
    return _gemma(layers, width, forward, queries, kv).replace(
        family="gemma3", vocabulary_size=262_144, head_dim=head, query_scale=(scale or head) ** -0.5,
        use_post_norms=True, use_query_key_norm=True, sliding_window=window, local_layers=every_nth_global(layers, 6),
        rope_theta=1e6, local_rope_theta=1e4, rope_scale=rope_scale, context_length=context,
    )  # fmt: skip


PUBLISHED_SIZES = {
    "gemma_2b": _gemma(18, 2048, 16_384, 8, 1),
    "gemma_7b": _gemma(28, 3072, 24_576, 16, 16),
    "gemma2_2b": _gemma2(26, 2304, 9216, 8, 4),
    "gemma2_9b": _gemma2(42, 3584, 14_336, 16, 8),
    "gemma2_27b": _gemma2(46, 4608, 36_864, 32, 16, head=128, scale=144),
    "gemma3_270m": _gemma3(18, 640, 2048, 4, 1, window=512, rope_scale=1.0, context=32_768),
    "gemma3_1b": _gemma3(26, 1152, 6912, 4, 1, window=512, rope_scale=1.0, context=32_768),
    "gemma3_4b": _gemma3(34, 2560, 10_240, 8, 4),
    "gemma3_12b": _gemma3(48, 3840, 15_360, 16, 8),
    "gemma3_27b": _gemma3(62, 5376, 21_504, 32, 16, head=128, scale=168),
}

# KerasHub's preset names and the models that share a size: (stem, its size).
_ALIAS_STEMS = {
    "gemma_1.1_instruct_2b": "gemma_2b", "gemma_1.1_instruct_7b": "gemma_7b", "gemma_instruct_2b": "gemma_2b",
    "gemma_instruct_7b": "gemma_7b", "code_gemma_2b": "gemma_2b", "code_gemma_1.1_2b": "gemma_2b",
    "code_gemma_7b": "gemma_7b", "code_gemma_instruct_7b": "gemma_7b", "code_gemma_1.1_instruct_7b": "gemma_7b",
    **{f"{stem}_{s}": f"gemma2_{s}" for stem in ("gemma2_instruct", "shieldgemma") for s in ("2b", "9b", "27b")},
    **{f"c2s_scale_gemma_2_{s}": f"gemma2_{s}" for s in ("2b", "27b")},
    **{f"gemma3_instruct_{s}": f"gemma3_{s}" for s in ("270m", "1b", "4b", "12b", "27b")},
    **{f"translategemma_{s}_it": f"gemma3_{s}" for s in ("4b", "12b", "27b")},
    "function_gemma_instruct_270m": "gemma3_270m", "medgemma_4b": "gemma3_4b", "medgemma_instruct_4b": "gemma3_4b",
    "medgemma_1.5_instruct_4b": "gemma3_4b", "medgemma_instruct_27b": "gemma3_27b",
}  # fmt: skip


def size_name(name: str) -> str | None:
    """The key of `PUBLISHED_SIZES` that `name` means, KerasHub's names included, or None."""
    stem = name.removesuffix("_text").removesuffix("_en")
    stem = _ALIAS_STEMS.get(stem, stem)
    return stem if stem in PUBLISHED_SIZES else None
