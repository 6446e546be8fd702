"""TRL's trainers on PyTorch: one sample is one optimizer step, of RLOO with its rollouts, scoring and gradient.

The trainers own their loop, so a callback stops them before each step until the parent asks for a sample.
"""

import tempfile

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GemmaForSequenceClassification, PreTrainedTokenizerFast, TrainerCallback
from trl import RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer

from benchmarks.engines.inputs import even_share, expect_shape, token_ids
from benchmarks.engines.transformers_engine import build, config_of

_MOST_STEPS = 1000


class _Gate(TrainerCallback):
    def __init__(self, stopwatch):
        self.stopwatch = stopwatch

    def on_step_begin(self, args, state, control, **kwargs):
        if not self.stopwatch.wait():
            raise SystemExit(0)

    def on_step_end(self, args, state, control, **kwargs):
        self.stopwatch.report()


def serve(case, stopwatch) -> None:
    """Build the trainer and let it run, step by step."""
    {"reinforce": reinforce, "reward": reward}[case.kind](case, stopwatch)


def reward(case, stopwatch) -> None:
    """Train a reward model."""
    model = GemmaForSequenceClassification(config_of(case.size, num_labels=1, pad_token_id=0))
    columns = {
        f"{name}_ids": token_ids(case, 2 * case.batch_size, case.prompt_length)[start::2].tolist()
        for start, name in enumerate(("chosen", "rejected"))
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(per_device_train_batch_size=case.batch_size, max_length=case.prompt_length,
                learning_rate=1e-4, **_options(case, folder)),
            train_dataset=datasets.Dataset.from_dict(columns),
            processing_class=word_tokenizer(case.size.vocabulary_size),
            callbacks=[_Gate(stopwatch)],
        )  # fmt: skip
        _run(trainer, stopwatch)


def reinforce(case, stopwatch) -> None:
    """RLOO with a reference model."""
    rollouts = case.batch_size * case.samples_per_prompt

    def even_ids(completion_ids, **kwargs):
        expect_shape((len(completion_ids), len(completion_ids[0])), (rollouts, case.new_tokens))
        return even_share(completion_ids)

    with tempfile.TemporaryDirectory() as folder:
        # From a folder, because the trainer reads its reference model from where the policy came from.
        build(case).save_pretrained(folder)
        options = RLOOConfig(
            model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
            per_device_train_batch_size=case.micro_batch_size,
            gradient_accumulation_steps=rollouts // case.micro_batch_size,
            generation_batch_size=rollouts,
            num_generations=case.samples_per_prompt,
            max_completion_length=case.new_tokens,
            temperature=1.0,
            beta=0.05,
            learning_rate=1e-5,
            remove_unused_columns=False,
            **_options(case, folder),
        )
        trainer = RLOOTrainer(
            model=folder,
            reward_funcs=even_ids,
            args=options,
            train_dataset=prompts(case),
            processing_class=word_tokenizer(case.size.vocabulary_size),
            callbacks=[_Gate(stopwatch)],
        )
        _run(trainer, stopwatch)


def _options(case, folder) -> dict:
    """What both trainers are told: no checkpoints, no logs, no recomputation, the fused optimizer."""
    return {
        "output_dir": folder,
        "max_steps": _MOST_STEPS,
        "gradient_checkpointing": False,
        "optim": "adamw_torch_fused",
        "bf16": case.dtype == "mixed_bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def _run(trainer, stopwatch) -> None:
    stopwatch.ready(parameters=sum(parameter.numel() for parameter in trainer.model.parameters()))
    trainer.train()


def prompts(case) -> datasets.Dataset:
    """The prompts of every step, as text in which a word is a token."""
    ids = token_ids(case, case.batch_size * 8, case.prompt_length)
    return datasets.Dataset.from_dict({"prompt": [" ".join(f"w{token}" for token in row) for row in ids]})


def word_tokenizer(vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose word `w17` is id 17, so that prompts have a known number of tokens. None of the words ends a
    text."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary_size)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # An id outside the vocabulary: sampling cannot end early, which would make a step cheaper by chance.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", eos_token="<never>", padding_side="left")
