"""One thing to measure: sizes, data, and the libraries that do it on each backend."""

import dataclasses

BACKENDS = ("jax", "tensorflow", "torch")
OURS = "ours"

VARIANTS = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "xla": {"xla": True},
    "graph": {"xla": False},
    "bfloat16_rollouts": {"rollout_dtype": "bfloat16"},
}
"""What may stand behind the @ of a library: the fields of the case that are other there."""
SETTINGS = ("xla", "graph")
"""Variants that compute the same: of these a library's fastest counts. The others are rows of their own."""


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A Gemma 1 with multi-query attention.

    Args:
        intermediate_dim: feed-forward width per branch.
    """

    vocabulary_size: int = 8192
    num_layers: int = 8
    hidden_dim: int = 512
    num_query_heads: int = 8
    num_key_value_heads: int = 1
    head_dim: int = 64
    intermediate_dim: int = 2048


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        name: of the case, as `--only` selects it.
        kind: "train" (a step of `fit`), "generate", "reinforce" (a whole step of RL), "reward" (a step of a reward
            model), "update" (the optimizer alone) or "first_call" (of a training step, in new processes, with an empty
            and with a filled cache of compiled programs).
        title: how the table names it.
        libraries: backend → who does it, ours first; each perhaps with a variant, as in "keras_hub@xla".
        size: `ModelSize`; unused where there is a `model`.
        batch_size: sequences; pairs of a reward model.
        prompt_length, new_tokens: tokens; what trains has `new_tokens` 0 and sequences of `prompt_length`.
        samples_per_prompt: answers a prompt ("reinforce").
        steps: steps a sample, each timed.
        odd_rows: rows of a last, smaller batch after them, timed by itself; 0 for none.
        lora_rank: train adapters of this rank beside queries and values, KerasHub's choice, in place of all weights; 0
            for none.
        dtype: Keras' policy. "mixed_bfloat16" is PyTorch's autocast over float32 weights.
        rollout_dtype: of the copy of the policy that draws ("reinforce"); None draws from the policy.
        xla: True or False for Keras' `jit_compile`; None for what is the fastest on JAX and PyTorch.
        temperature, top_k, top_p: of sampling.
        real_model: the published weights of Gemma 3 270M, in place of random ones.
        memory_limit_gib: a library that holds more is ended and does not fit; such cases run one library after the
            other. None for no limit.
        most_samples: a long case takes no more.
        quick: part of `make bench-quick`.
    """

    name: str
    kind: str
    title: str
    libraries: dict[str, tuple[str, ...]]
    size: ModelSize = ModelSize()
    batch_size: int = 8
    prompt_length: int = 256
    new_tokens: int = 0
    samples_per_prompt: int = 1
    steps: int = 1
    odd_rows: int = 0
    lora_rank: int = 0
    dtype: str = "float32"
    rollout_dtype: str | None = None
    xla: bool | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    real_model: bool = False
    memory_limit_gib: float | None = None
    most_samples: int | None = None
    quick: bool = False

    @property
    def tokens(self) -> int:
        """Tokens a step: those trained on, else those sampled; 0 where neither is done."""
        if self.kind == "update":
            return 0
        if self.new_tokens:
            return self.batch_size * self.samples_per_prompt * self.new_tokens
        return self.batch_size * self.prompt_length * (2 if self.kind == "reward" else 1)

    @property
    def micro_batch_size(self) -> int:
        """Sequences that a step of RL sends through the model at once while it learns: a quarter of all."""
        return max(1, self.batch_size * self.samples_per_prompt // 4)

    def of(self, library: str) -> "Case":
        """The case as a library with a variant runs it."""
        return dataclasses.replace(self, **(VARIANTS[variant(library)] if variant(library) else {}))


def engine(library: str) -> str:
    """A library's name without its variant."""
    return library.partition("@")[0]


def variant(library: str) -> str:
    """What stands behind the @, or ""."""
    return library.partition("@")[2]


def tiny(case: Case) -> Case:
    """The same case at a size that runs in seconds: to try the benchmark itself, not to measure."""
    size = ModelSize(128 if case.size.vocabulary_size < 100_000 else 512, 2, 32, 4, 1, 8, 64)
    return dataclasses.replace(
        case, size=size, batch_size=min(case.batch_size, 2), prompt_length=8, new_tokens=min(case.new_tokens, 4),
        odd_rows=min(case.odd_rows, 1), real_model=False,
    )  # fmt: skip
