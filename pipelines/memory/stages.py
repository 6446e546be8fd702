"""What the kinds of stages have in common: reward models beside them, training on a data set, responses of a frozen
model that are scored."""

import dataclasses

from pipelines.memory.sampling import Sampled, scoring
from pipelines.memory.training import Learning
from pipelines.memory.usage import Sized, Usage
from pipelines.memory.weights import frozen_bytes
from pipelines.schema.base import Bits, ModelStage, OptimizerOptions, StageConfig, TrainingOptions
from pipelines.schema.pairwise import JudgeModel, Judging
from pipelines.schema.roles import references_of

JUDGE_WIDTH = 1024  # of a question; what a batch takes hardly depends on it


def reward_model_bytes(config: StageConfig, dtype: str, quantize: Bits | None, sized: Sized) -> float:
    """The reward models that a stage names."""
    named = {one.target for one in references_of(config) if one.is_model and one.role.product == "reward_model"}
    return sum(frozen_bytes(sized.config_of(name), dtype, quantize) for name in named)


def learning(config: OptimizerOptions, sized: Sized, rows: int, targets: int, sums_up: bool) -> Learning:
    """What a stage trains, on rows of `max_length` tokens."""
    lora = config.lora
    return Learning(
        sized.config_of(config.from_), sized.backend, config.dtype, None if lora is None else lora.options(),
        None if lora is None else lora.quantize, config.remat, rows, config.max_length, targets, sums_up,
    )  # fmt: skip


def trained_on_rows(config: TrainingOptions, sized: Sized, sequences: int, has_head: bool) -> Learning:
    """The updates of a stage that passes over a data set.

    Args:
        sequences: rows that an example has. has_head: False for a reward model.
    """
    size = min(config.micro_batch_size or config.batch_size, config.batch_size)
    targets = config.max_length if has_head else 0
    return learning(config, sized, size * sequences, targets, sums_up=size < config.batch_size)


def sampled_and_scored(
    config: ModelStage, sized: Sized, rewards: float, rows: int, shared: int, new_tokens: int
) -> list[Usage]:
    """A frozen model draws responses, and reward models of `rewards` bytes score them."""
    model = sized.config_of(config.from_)
    standing = Usage("sampling", weights=frozen_bytes(model, config.dtype), frozen=rewards)
    sampled = Sampled(
        model, sized.backend, config.dtype, True, rows - rows % shared or rows, shared, config.max_length, new_tokens
    )
    before = dataclasses.replace(standing, doing="scoring")
    scored = scoring(before, model, sized.backend, config.dtype, rows, config.max_length, 0)
    return [sampled.beside(standing), scored]


def judge_usage(settings: Judging, dtype: str, sized: Sized) -> Usage:
    """A judge of pairs, reading a batch of questions; nothing where it is no model of our own."""
    judge = settings.judge
    if not isinstance(judge, JudgeModel):
        return Usage("asking the judge")
    model = sized.config_of(judge.model)
    rows = max(1, judge.batch_tokens // JUDGE_WIDTH)
    standing = Usage("asking the judge", weights=frozen_bytes(model, dtype))
    return scoring(standing, model, sized.backend, dtype, rows, JUDGE_WIDTH, 0)
