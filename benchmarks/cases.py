"""What is measured: model sizes, batches, and which libraries are compared on which backend."""

import dataclasses

BACKENDS = ("jax", "tensorflow", "torch")


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A Gemma 1 with multi-query attention; float32.

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
        kind: "train" (a step of `fit`), "generate" or "reinforce" (a whole step of RL).
        title: how the table names it.
        size: `ModelSize`.
        batch_size: sequences.
        prompt_length, new_tokens: tokens; a "train" case has `new_tokens` 0 and sequences of `prompt_length`.
        samples_per_prompt: answers a prompt ("reinforce").
        steps: steps a sample; the time is divided by it.
        lora_rank: train adapters of this rank beside queries and values, KerasHub's choice, in place of all weights; 0
            for none.
        peers: backend → libraries measured beside ours.
    """

    name: str
    kind: str
    title: str
    size: ModelSize
    batch_size: int
    prompt_length: int
    new_tokens: int = 0
    samples_per_prompt: int = 1
    steps: int = 1
    lora_rank: int = 0
    peers: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens a step: those trained on, else those sampled."""
        if self.kind == "train":
            return self.batch_size * self.prompt_length
        return self.batch_size * self.samples_per_prompt * self.new_tokens

    @property
    def micro_batch_size(self) -> int:
        """Sequences that a step of RL sends through the model at once while it learns: a quarter of all."""
        return max(1, self.batch_size * self.samples_per_prompt // 4)


_KERAS_AND_TORCH = {"jax": ("keras_hub",), "tensorflow": ("keras_hub",), "torch": ("keras_hub", "transformers")}
_LARGE_VOCABULARY = ModelSize(vocabulary_size=256_000, num_layers=2)

CASES = (
    Case("train", "train", "training step, 34M parameters, 8 × 256", ModelSize(), 8, 256, steps=4,
        peers=_KERAS_AND_TORCH),
    Case(
        "train_large_vocabulary", "train", "training step, vocabulary 256,000, 2 layers, 2 × 256",
        _LARGE_VOCABULARY, 2, 256, steps=2, peers=_KERAS_AND_TORCH,
    ),
    Case(
        "train_lora", "train", "LoRA step, rank 16 on queries and values, 34M parameters, 8 × 256",
        ModelSize(), 8, 256, steps=4, lora_rank=16, peers=_KERAS_AND_TORCH,
    ),
    Case(
        "train_lora_large_vocabulary", "train",
        "LoRA step, rank 16 on queries and values, vocabulary 256,000, 2 layers, 2 × 256", _LARGE_VOCABULARY, 2, 256,
        steps=2, lora_rank=16, peers=_KERAS_AND_TORCH,
    ),
    Case("generate_16", "generate", "generation, 64 + 128 tokens, batch 16", ModelSize(), 16, 64, 128,
        peers=_KERAS_AND_TORCH),
    Case("generate_1", "generate", "generation, 64 + 128 tokens, batch 1", ModelSize(), 1, 64, 128,
        peers=_KERAS_AND_TORCH),
    Case(
        "reinforce", "reinforce", "RL step (RLOO with KL), 16 prompts × 4 answers, 64 + 128 tokens",
        ModelSize(), 16, 64, 128, samples_per_prompt=4, peers={"torch": ("trl",)},
    ),
)  # fmt: skip


def tiny(case: Case) -> Case:
    """The same case at a size that runs in seconds: to try the benchmark itself, not to measure."""
    size = ModelSize(128 if case.size.vocabulary_size < 100_000 else 512, 2, 32, 4, 1, 8, 64)
    return dataclasses.replace(
        case, size=size, batch_size=min(case.batch_size, 2), prompt_length=8, new_tokens=min(case.new_tokens, 4)
    )


def case_named(name: str) -> Case:
    """The case of that name.

    Raises:
        ValueError: there is none.
    """
    for case in CASES:
        if case.name == name:
            return case
    raise ValueError(f"Unknown case {name!r}: expected one of {', '.join(case.name for case in CASES)}")
