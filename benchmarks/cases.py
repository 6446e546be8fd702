"""What is measured: model sizes, batches, and which libraries are compared on which backend."""

from benchmarks.case import Case, ModelSize

# On TensorFlow XLA wins for some programs and loses for others: both sides run with and without.
_TENSORFLOW = ("ours@graph", "ours@xla", "keras_hub@graph", "keras_hub@xla")
_ALL = {"jax": ("ours", "keras_hub"), "tensorflow": _TENSORFLOW, "torch": ("ours", "keras_hub", "transformers")}
_ALL_BFLOAT16 = {
    "jax": ("ours", "ours@float32", "keras_hub"),
    "tensorflow": (*_TENSORFLOW, "ours@float32"),
    "torch": ("ours", "ours@float32", "keras_hub", "transformers"),
}
# `generate` is one XLA program on both sides.
_SAMPLING = {**_ALL, "tensorflow": ("ours", "keras_hub@xla")}
_SAMPLING_BFLOAT16 = {
    **_ALL_BFLOAT16,
    "tensorflow": ("ours", "ours@float32", "keras_hub@xla"),
    "torch": (*_ALL_BFLOAT16["torch"], "transformers@float32"),
}
# TRL runs on PyTorch alone, beside ours on each backend.
_TRL = dict.fromkeys(("jax", "tensorflow", "torch"), ("ours", "trl"))
_REAL = {"torch": ("ours", "transformers")}

_WIDE = ModelSize(vocabulary_size=256_000, num_layers=2)
_WIDEST = ModelSize(vocabulary_size=262_144, num_layers=2)
_RL = {"batch_size": 16, "prompt_length": 64, "new_tokens": 128, "samples_per_prompt": 4, "most_samples": 2}
_GENERATE_16 = {"batch_size": 16, "prompt_length": 64, "new_tokens": 128}
_LORA_TITLE = "LoRA step, rank 16 on queries and values"


def _long(length: int, samples: int) -> Case:
    return Case(
        f"context_{length}", "train", f"training step, 34M parameters, 1 × {length:,}", _ALL, batch_size=1,
        prompt_length=length, memory_limit_gib=16.0, most_samples=samples,
    )  # fmt: skip


def _widest(name: str, how: str, **sampling) -> Case:
    return Case(
        f"generate_{name}", "generate", f"generation, vocabulary 262,144, 2 layers, 64 + 16 tokens, batch 16, {how}",
        _SAMPLING, _WIDEST, 16, 64, 16, most_samples=2, **sampling,
    )  # fmt: skip


def _real_decode(rows: int, samples: int) -> Case:
    return Case(
        f"gemma_3_270m_decode_{rows}", "generate", f"Gemma 3 270M, bfloat16, 64 + 64 tokens, batch {rows}",
        {"torch": (*_REAL["torch"], "llama_cpp") if rows == 1 else _REAL["torch"]}, _WIDEST, rows, 64, 64,
        dtype="bfloat16", real_model=True, most_samples=samples,
    )  # fmt: skip


CASES = (
    Case("train", "train", "training step, 34M parameters, 8 × 256", _ALL, steps=2, quick=True),
    Case(
        "train_mixed_bfloat16", "train", "training step, mixed bfloat16, 34M parameters, 8 × 256", _ALL_BFLOAT16,
        steps=2, dtype="mixed_bfloat16",
    ),
    Case(
        "train_large_vocabulary", "train", "training step, vocabulary 256,000, 2 layers, 2 × 256", _ALL, _WIDE, 2,
        steps=2,
    ),
    Case("train_lora", "train", f"{_LORA_TITLE}, 34M parameters, 8 × 256", _ALL, steps=2, lora_rank=16,
        most_samples=3),
    Case(
        "train_lora_odd", "train", f"{_LORA_TITLE}, 34M parameters, 8 × 256 and a last batch of 3", _ALL, steps=2,
        lora_rank=16, odd_rows=3, most_samples=3,
    ),
    Case(
        "train_lora_large_vocabulary", "train", f"{_LORA_TITLE}, vocabulary 256,000, 2 layers, 2 × 256", _ALL, _WIDE,
        2, steps=2, lora_rank=16, most_samples=3,
    ),
    Case(
        "train_lora_large_vocabulary_odd", "train",
        f"{_LORA_TITLE}, vocabulary 256,000, 2 layers, 2 × 256 and a last batch of 1", _ALL, _WIDE, 2, steps=2,
        lora_rank=16, odd_rows=1, most_samples=3,
    ),
    _long(256, 3), _long(1024, 3), _long(2048, 2), _long(4096, 1), _long(8192, 1),
    Case(
        "update", "update", "optimizer step alone: clipped, guarded AdamW, 34M parameters",
        {"jax": ("ours",), "tensorflow": ("ours",), "torch": ("ours", "transformers")}, steps=4, quick=True,
    ),
    Case("generate_16", "generate", "generation, 64 + 128 tokens, batch 16", _SAMPLING, **_GENERATE_16, quick=True),
    Case("generate_1", "generate", "generation, 64 + 128 tokens, batch 1", _SAMPLING, ModelSize(), 1, 64, 128),
    Case(
        "generate_16_bfloat16", "generate", "generation, bfloat16, 64 + 128 tokens, batch 16", _SAMPLING_BFLOAT16,
        **_GENERATE_16, dtype="bfloat16",
    ),
    _widest("temperature", "temperature 0.7", temperature=0.7),
    _widest("top_k", "top-k 50", top_k=50),
    _widest("top_p", "top-p 0.9", top_p=0.9),
    Case(
        "reinforce", "reinforce", "RL step (RLOO with KL), 16 prompts × 4 answers, 64 + 128 tokens",
        {**_TRL, "torch": ("ours", "ours@bfloat16_rollouts", "trl")}, **_RL,
    ),
    Case(
        "reinforce_mixed_bfloat16", "reinforce",
        "RL step (RLOO with KL), mixed bfloat16, 16 prompts × 4 answers, 64 + 128 tokens", {"torch": _TRL["torch"]},
        **_RL, dtype="mixed_bfloat16",
    ),
    Case("reward", "reward", "reward model step, 34M parameters, 8 pairs × 256", _TRL, most_samples=3),
    Case(
        "reward_mixed_bfloat16", "reward", "reward model step, mixed bfloat16, 34M parameters, 8 pairs × 256", _TRL,
        dtype="mixed_bfloat16", most_samples=3,
    ),
    Case(
        "gemma_3_270m_train", "train", "Gemma 3 270M, training step, mixed bfloat16, 4 × 256", _REAL, _WIDEST, 4,
        dtype="mixed_bfloat16", real_model=True, most_samples=3,
    ),
    _real_decode(1, 3), _real_decode(16, 3), _real_decode(64, 2),
    Case(
        "first_call", "first_call", "first training step in a new process, 34M parameters, 8 × 256",
        # XLA's programs alone are kept; PyTorch compiles nothing.
        {"jax": ("ours", "keras_hub"), "tensorflow": ("ours@xla", "keras_hub@xla")}, most_samples=1,
    ),
)  # fmt: skip


def case_named(name: str) -> Case:
    """The case of that name.

    Raises:
        ValueError: there is none.
    """
    for case in CASES:
        if case.name == name:
            return case
    raise ValueError(f"Unknown case {name!r}: expected one of {', '.join(case.name for case in CASES)}")
