"""Sampling and scoring: what stands while responses are drawn with a cache, or read without gradients."""

import dataclasses

from gemma_keras.config import GemmaConfig
from gemma_keras.limits import LEAST_HALVED_ROWS, LONG_DECODING
from pipelines.memory.activations import compiler, working_bytes
from pipelines.memory.head import cast_bytes, head_bytes
from pipelines.memory.usage import Usage
from pipelines.memory.weights import FLOAT, HALF, compute_bytes, kernel_count

DRAWING = 3
"""Copies of a step's logits: themselves, their exponentials, and what the sampler compares."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Responses that are drawn at once.

    Args:
        config: of the model. backend, dtype: of the stage; `is_frozen` where it is held rounded, see `frozen_bytes`.
        rows: responses at once. shared: how many of them have one prompt.
        width: tokens of a prompt and its response, of which the response has `new_tokens`.
    """

    config: GemmaConfig
    backend: str
    dtype: str
    is_frozen: bool
    rows: int
    shared: int
    width: int
    new_tokens: int

    def beside(self, standing: Usage) -> Usage:
        """What stands, and what sampling adds to it."""
        prompts = -(-self.rows // self.shared)
        return dataclasses.replace(
            standing, cache=self._cache_bytes(prompts), activations=self._prefill_bytes(prompts) + self._cast_bytes(),
            logits=DRAWING * FLOAT * self.rows * self.config.vocabulary_size + cast_bytes(self.config, self._held),
        )  # fmt: skip

    @property
    def _held(self) -> str:
        return "bfloat16" if self.is_frozen and self.dtype == "mixed_bfloat16" else self.dtype

    def _cache_bytes(self, prompts: int) -> float:
        config = self.config
        a_slot = 2 * config.num_key_value_heads * config.head_dim * compute_bytes(self.dtype)
        a_row = config.num_layers * self.width * a_slot
        # That of the prompts stands while it is repeated for the answers; later that of the rows that are left.
        repeated = prompts if self.shared > 1 else 0
        # The whole cache stands beside those of the rows that go on in a batch of half the size.
        share = 0.5 + 0.25 * (self.new_tokens > LONG_DECODING)
        halves = share * self.rows if self.rows >= LEAST_HALVED_ROWS else 0
        return a_row * (self.rows + max(repeated, halves))

    def _prefill_bytes(self, prompts: int) -> float:
        tokens = prompts * (self.width - self.new_tokens)
        # The prompts see the slots of the cache through a mask, all pairs at once: scores and softmax.
        pairs = tokens * self.config.num_query_heads * self.width * 2 * FLOAT
        return working_bytes(self.config, self.backend, self.dtype, tokens) + pairs

    def _cast_bytes(self) -> float:
        """XLA takes the casts of kernels out of its loop, where all of them then stand; PyTorch casts one at a time."""
        is_cast = self._held == "mixed_bfloat16" and compiler(self.backend) == "xla"
        return HALF * kernel_count(self.config) if is_cast else 0.0


def scoring(
    standing: Usage, config: GemmaConfig, backend: str, dtype: str, rows: int, width: int, targets: int
) -> Usage:
    """What stands, and what reading rows of (rows, width) adds, `targets` log-probabilities with entropy in each; 0 for
    a reward model."""
    head = head_bytes(config, backend, dtype, rows, targets, False, has_entropy=True) if targets else 0.0
    return dataclasses.replace(standing, activations=working_bytes(config, backend, dtype, rows * width), logits=head)
