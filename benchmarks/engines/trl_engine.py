"""TRL's RLOO trainer on PyTorch: one sample is one optimizer step with its rollouts, scoring and gradient.

The trainer owns its loop, so a callback stops it before each step until the parent asks for a sample.
"""

import tempfile

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from benchmarks.engines.inputs import even_share, expect_shape, token_ids
from benchmarks.engines.transformers_engine import build

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
    rollouts = case.batch_size * case.samples_per_prompt

    def reward(completion_ids, **kwargs):
        expect_shape((len(completion_ids), len(completion_ids[0])), (rollouts, case.new_tokens))
        return even_share(completion_ids)

    with tempfile.TemporaryDirectory() as folder:
        # From a folder, because the trainer reads its reference model from where the policy came from.
        build(case).save_pretrained(folder)
        options = RLOOConfig(
            output_dir=folder,
            model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
            per_device_train_batch_size=case.micro_batch_size,
            gradient_accumulation_steps=rollouts // case.micro_batch_size,
            generation_batch_size=rollouts,
            num_generations=case.samples_per_prompt,
            max_completion_length=case.new_tokens,
            temperature=1.0,
            beta=0.05,
            learning_rate=1e-5,
            max_steps=_MOST_STEPS,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = RLOOTrainer(
            model=folder,
            reward_funcs=reward,
            args=options,
            train_dataset=prompts(case),
            processing_class=word_tokenizer(case.size.vocabulary_size),
            callbacks=[_Gate(stopwatch)],
        )
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
