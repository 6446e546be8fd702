"""What a forward pass leaves behind for the backward pass, and what a block works with, in bytes a token.

The kept numbers of a block, by part: f feed-forward, d width, q query heads times head size, k the same of key-value
heads. They are read off, not guessed: on PyTorch from autograd's saved tensors, on JAX from the temporaries that XLA
plans for (`memory_analysis`), each as the slope when one size of a small model is doubled.

- PyTorch keeps of f gate, gelu(gate), up and their product; of d both inputs of the norms, their float32 copies and
  both normed states; of q the rotated queries, the mixed values and their transposed copy; of k keys and values.
- XLA keeps one more of f (the derivative of GELU has a tanh), fewer of d, as it fuses norms into what reads them, and
  keys, values and mixed values in the layout of the blocks as well as in rows. In half precision GELU and norms are
  computed in float32 and some of their results stay so: the bytes do not halve.
- Attention beyond `DENSE_TOKENS` is computed in blocks (arXiv:2205.14135), nothing of size (t, t) is kept; up to there
  it has a mask and scores. With `remat: block` only each block's input is kept.
- Under mixed_bfloat16 each kernel is cast, and the cast copy kept beside what it was multiplied with; recomputed blocks
  cast again, one block at a time.
"""

import dataclasses

from gemma_keras.config import GemmaConfig
from gemma_keras.limits import DENSE_TOKENS
from pipelines.memory.weights import FLOAT, HALF, compute_bytes, kernel_count, kernel_shapes


@dataclasses.dataclass(frozen=True)
class TokenBytes:
    """Bytes a token of a block, by what they are multiplied with."""

    f: float
    d: float
    q: float
    k: float = 0.0

    def of(self, config: GemmaConfig) -> float:
        """Bytes a token of one block."""
        queries, keys = (heads * config.head_dim for heads in (config.num_query_heads, config.num_key_value_heads))
        return self.f * config.intermediate_dim + self.d * config.hidden_dim + self.q * queries + self.k * keys


KEPT = {
    ("xla", FLOAT): TokenBytes(20, 10, 16, 24), ("xla", HALF): TokenBytes(16, 15, 12, 19),
    ("torch", FLOAT): TokenBytes(16, 24, 12, 8), ("torch", HALF): TokenBytes(8, 20, 6, 4),
}  # fmt: skip
WORKING = {
    ("xla", FLOAT): TokenBytes(8, 16, 4), ("xla", HALF): TokenBytes(4, 8, 2),
    ("torch", FLOAT): TokenBytes(12, 8, 4), ("torch", HALF): TokenBytes(6, 4, 2),
}  # fmt: skip
"""Of the block whose gradients, or results, are being computed, beside what is kept."""
POST_NORM = {"xla": 4, "torch": 8}
"""Of d, for each of the two norms after attention and feed-forward that Gemma 2 and 3 have."""


def compiler(backend: str) -> str:
    """Whose habits count: those of XLA, for JAX and TensorFlow, or PyTorch's."""
    return "torch" if backend == "torch" else "xla"


def kept_bytes(
    config: GemmaConfig, backend: str, dtype: str, tokens: int, width: int, remat: str, dropout: bool
) -> float:
    """What the backward pass finds, casts of kernels included.

    Args:
        tokens: positions of a micro-batch, b * t. width: t.
        remat: "none" or "block". dropout: whether an adapter drops inputs, each projection its own.
    """
    kept = block_bytes(config, backend, dtype, tokens, width)
    if dropout:
        inputs = sum(shape[0] for shape in kernel_shapes(config).values())
        kept += tokens * inputs * compute_bytes(dtype)
    casts = HALF * kernel_count(config, 1) if dtype == "mixed_bfloat16" else 0
    if remat == "block":
        # One block is computed again at a time, all that it keeps included.
        return config.num_layers * tokens * config.hidden_dim * compute_bytes(dtype) + kept + casts
    return config.num_layers * (kept + casts)


def block_bytes(config: GemmaConfig, backend: str, dtype: str, tokens: int, width: int) -> float:
    """What one block keeps of its tokens."""
    size, habit = compute_bytes(dtype), compiler(backend)
    a_token = KEPT[habit, size].of(config)
    a_token += 2 * POST_NORM[habit] * config.hidden_dim * config.use_post_norms
    if config.use_query_key_norm:
        heads = config.num_query_heads + config.num_key_value_heads
        a_token += POST_NORM[habit] * heads * config.head_dim
    if width <= DENSE_TOKENS[backend]:
        # PyTorch's fused attention keeps its mask as numbers, a row a head; XLA the softmax.
        a_token += config.num_query_heads * width * (size if habit == "torch" else FLOAT)
    return tokens * a_token


def working_bytes(config: GemmaConfig, backend: str, dtype: str, tokens: int) -> float:
    """What a block takes while it is computed."""
    return tokens * WORKING[compiler(backend), compute_bytes(dtype)].of(config)
