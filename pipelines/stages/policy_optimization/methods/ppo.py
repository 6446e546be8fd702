"""Proximal policy optimization: a model of values says what each token added, and ratios of tokens are clipped.

    A_t = generalized advantages of what tokens earn: -kl_weight * (log pi_old - log pi_ref) each, the last one also the
          reward, less the missing stop; whitened over the rollout
    loss = -mean over tokens of min(ratio_t A_t, clip(ratio_t) A_t)
    values: half of the clipped squared error to A_t + V_t, in an update of their own beside each of the policy's

Source: Schulman et al. 2017, arXiv:1707.06347; for language models Ziegler et al. 2019, arXiv:1909.08593.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from pipelines.schema.named import Named
from pipelines.schema.roles import Names
from pipelines.stages.policy_optimization.methods.base import LossFunction, Method, Scored

if TYPE_CHECKING:
    from pipelines.stages.context import StageContext
    from pipelines.stages.policy_optimization.config import PolicyOptimization
    from pipelines.stages.policy_optimization.values import ValueLearner
    from pipelines.training.loop import Trainer


class PpoOptions(Named):
    """What stands beside the name in `algorithm: {name: ppo, ...}`."""

    discount: float = Field(1.0, gt=0, le=1, description="Of what later tokens earn, gamma.")
    trace: float = Field(0.95, ge=0, le=1, description="How far advantages look beyond the next value, lambda.")
    whiten: bool = Field(True, description="Scale advantages to mean 0 and deviation 1 over the rollout.")
    value_clip_range: float | None = Field(
        0.2, gt=0, description="How far a value may move in a step; none without a bound."
    )
    value_learning_rate: float | None = Field(None, gt=0, description="Of the values; default the policy's.")
    value_model: Annotated[str | None, Names("reward_model")] = Field(
        None,
        min_length=1,
        description="Reward model that the values start from; default the one that scores, else the policy's start.",
    )


class PPO(Method):
    """`algorithm: ppo`."""

    name = "ppo"
    summary = "a model of values says what each token added"
    page = "docs/algorithms/ppo.md"
    Options = PpoOptions
    options: PpoOptions
    trains_values = True
    metrics = {
        "clip_ratio": "share of tokens whose gradient the clip took away",
        "clip_ratio/low_mean": "those of them at the lower end",
        "clip_ratio/high_mean": "those of them at the upper end",
        "value_loss": "half of the squared error of the values, in squared units of the reward",
        "value_clip_ratio": "share of tokens whose value the clip held",
        "explained_variance": "of the returns by the values, before they learn from the rollout",
        "values/mean": "mean value of a place",
    }

    learner: "ValueLearner"
    of_rollout: dict[str, float]

    def set_up(self, config: "PolicyOptimization", context: "StageContext", micro_batch_size: int) -> None:
        """See `Method.set_up`; makes the model of values."""
        from pipelines.stages.policy_optimization.values import value_learner

        options = self.options
        self.learner = value_learner(
            config, context, options.value_learning_rate, options.value_clip_range, micro_batch_size
        )

    def trainers(self) -> dict[str, "Trainer"]:
        """See `Method.trainers`; that of the values."""
        return {"values": self.learner.trainer}

    def batch_arrays(self, scored: Scored, config: "PolicyOptimization") -> dict[str, np.ndarray]:
        """`advantages`, `returns` and `old_values`, each float32 (n, r)."""
        from pipelines.algorithms.value_learning import (
            explained_variance,
            generalized_advantages,
            token_rewards,
            whitened,
        )

        rollout, mask = scored.rollout, scored.rollout.response_mask
        charges = scored.kl_weight * (scored.old_log_probs - scored.reference_log_probs)
        charges = charges + config.entropy_weight * scored.old_log_probs
        rewards = scored.rewards - self.penalties(scored, config)
        values = self.learner.values(rollout)
        earned = token_rewards(rewards, charges, mask)
        advantages = generalized_advantages(earned, values, mask, self.options.discount, self.options.trace)
        returns = advantages + values
        self.of_rollout = {
            "explained_variance": explained_variance(values, returns, mask),
            "values/mean": float(values[mask].mean(dtype=np.float64)),
        }
        if self.options.whiten:
            advantages = whitened(advantages, mask)
        arrays = {"advantages": advantages, "returns": returns, "old_values": values}
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    def loss(self, config: "PolicyOptimization") -> LossFunction:
        """See `Method.loss`; a sum over tokens."""
        from pipelines.stages.policy_optimization.token_loss import TokenLoss

        return TokenLoss(config.temperature, config.trusted_range, config.max_new_tokens)

    def count_units(self, batch: Mapping[str, np.ndarray]) -> int:
        """See `Method.count_units`: tokens."""
        from pipelines.stages.policy_optimization.token_loss import count_units

        return count_units(batch, "tokens")

    def figures(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """See `Method.figures`."""
        from pipelines.stages.policy_optimization.token_loss import token_figures

        return token_figures(arrays)

    def learn(self, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """See `Method.learn`; an update of the values."""
        return {**self.of_rollout, **self.learner.update(batches)}
