"""The model of values beside a policy: what a response is expected to earn from each of its places on.

It is a reward model that is asked at every place of a response in place of the last one, started from the reward model
that scores, so that at the last token it says from the start what will be earned.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from gemma_keras import GemmaRewardModel, backends
from pipelines.algorithms.value_learning import clipped_value_losses
from pipelines.sampling.parts import scoring_parts
from pipelines.sampling.rollout import Rollout
from pipelines.schema.roles import references_of
from pipelines.stages.context import StageContext
from pipelines.stages.policy_optimization.config import PolicyOptimization
from pipelines.training.adapters import attach
from pipelines.training.loop import Batch, Trainer
from pipelines.training.optimizers import OptimizerSettings

_INPUTS = ("token_ids", "padding_mask", "positions", "segment_ids")


class ValueLearner:
    """A model of values, and its training.

    Args:
        model: GemmaRewardModel.
        settings: of its optimizer. total_steps: updates in all.
        clip_range: see `clipped_value_losses`.
        micro_batch_size: responses of a forward pass.

    Attributes:
        trainer: of the model.
    """

    def __init__(
        self, model: GemmaRewardModel, settings: OptimizerSettings, total_steps: int, clip_range: float | None,
        micro_batch_size: int,
    ) -> None:  # fmt: skip
        self._micro_batch_size = micro_batch_size
        self._forward = backends.compile_forward(lambda batch: response_values(model, batch), [model], "values")
        self.trainer = Trainer(model, value_loss(clip_range), settings, total_steps, count_units=count_tokens)

    def values(self, rollout: Rollout) -> np.ndarray:
        """Of the place before each token of n responses: float32 (n, r), 0 where nothing was sampled."""
        found = np.zeros(rollout.response_mask.shape, np.float32)
        for batch, rows in scoring_parts(rollout, self._micro_batch_size):
            of_part = backends.to_host(self._forward(batch))
            found[rows, : of_part.shape[1]] = of_part[: len(rows)]
        return np.where(rollout.response_mask, found, np.float32(0))

    def update(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One update on the micro-batches of the policy's, which have `old_values` and `returns`, float32 (k, m).

        Returns:
            `value_loss`, `value_clip_ratio`.
        """
        metrics = self.trainer.update(batches)
        return {"value_loss": metrics["loss"], "value_clip_ratio": metrics["clip_ratio"]}


def value_learner(
    config: PolicyOptimization, context: StageContext, learning_rate: float | None, clip_range: float | None,
    micro_batch_size: int,
) -> ValueLearner:  # fmt: skip
    """The model of values of a stage, as it starts: a reward model that the algorithm's options name, else the one that
    scores, else the policy's starting model under a head of zeros.

    Args:
        learning_rate: of its optimizer, default the policy's. clip_range: see `clipped_value_losses`.
    """
    source = _reward_model(config)
    model = GemmaRewardModel.from_preset(context.model_source(source or config.from_), dtype=config.dtype)
    if source is None:
        model.score.kernel.assign(np.zeros(model.score.kernel.shape, np.float32))
    attach(model, config, context.seed)
    settings = OptimizerSettings.of(config)
    if learning_rate is not None:
        settings = dataclasses.replace(settings, learning_rate=learning_rate)
    return ValueLearner(model, settings, config.steps * config.inner_updates, clip_range, micro_batch_size)


def _reward_model(config: PolicyOptimization) -> str | None:
    """The reward model that values start from, None without one: a sum of rewards has no model that says it."""
    named = [one for one in references_of(config) if one.is_model and one.role.product == "reward_model"]
    own = [one.target for one in named if one.path[0] == "algorithm"]
    scoring = [one.target for one in named if one.path == ("reward",)]
    return next(iter([*own, *scoring]), None)


def response_values(model: GemmaRewardModel, batch: Mapping[str, Any]) -> Any:
    """Values before each token of the responses of a batch of `scoring_parts`, normalized as rewards are: float32 (k,
    m)."""
    positions = batch["target_positions"]
    rows = batch.get("target_rows")
    if rows is None:  # a response a row
        rows = ops.broadcast_to(ops.arange(positions.shape[0], dtype="int32")[:, None], positions.shape)
    inputs = {name: batch[name] for name in _INPUTS if name in batch}
    places = {"reward_rows": ops.reshape(rows, (-1,)), "reward_positions": ops.reshape(positions, (-1,))}
    return ops.reshape(model.normalized(model({**inputs, **places})), positions.shape)


def value_loss(clip_range: float | None) -> Any:
    """The loss that `Trainer` takes, a sum over tokens; aux has `clip_ratio`, the tokens whose gradient the clip took
    away."""

    def loss_function(model: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        values = response_values(model, batch)
        arguments = batch["old_values"], batch["returns"], batch["response_mask"]
        losses, is_clipped = clipped_value_losses(values, *arguments, clip_range)
        return ops.sum(losses), {"clip_ratio": ops.sum(ops.cast(is_clipped, "float32"))}

    return loss_function


def count_tokens(batch: Batch) -> int:
    """Sampled tokens of a micro-batch that count."""
    return int(batch["response_mask"].sum())
