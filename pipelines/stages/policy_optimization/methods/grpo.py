"""GRPO: advantages relative to a prompt's group, and a clipped ratio of tokens; Dr. GRPO, DAPO and GSPO as switches.

A = (R - mean of the group) / (std of the group + 1e-4); loss = the mean over tokens of -min(ratio A, clip(ratio) A).

Source: Shao et al. 2024, arXiv:2402.03300; Liu et al. 2025 (Dr. GRPO), arXiv:2503.20783; Yu et al. 2025 (DAPO),
arXiv:2503.14476; Zheng et al. 2025 (GSPO), arXiv:2507.18071.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.stages.policy_optimization.methods.base import LossFunction, Method, Needs, Scored

if TYPE_CHECKING:
    from pipelines.stages.policy_optimization.config import PolicyOptimization


class GrpoOptions(Named):
    """What stands beside the name in `algorithm: {name: grpo, ...}`."""

    standard_deviation: bool = Field(True, description="Divide by the deviation of the group's rewards.")
    aggregation: Literal["tokens", "responses", "constant"] = Field(
        "tokens", description="The loss is a mean over all tokens, over the means of responses, or over max_new_tokens."
    )
    clip_range_high: float | None = Field(
        None, gt=0, description="The ratio is trusted up to 1 plus this; default the stage's clip_range."
    )
    ratio: Literal["token", "sequence"] = Field(
        "token", description="Clip the ratio of each token, or the geometric mean of a response's."
    )
    kl_in: Literal["reward", "loss"] = Field(
        "reward", description="Charge the KL to the reward, or add the estimator k3 to the loss."
    )
    drop_equal_groups: bool = Field(False, description="Leave out prompts whose responses all have one reward.")
    redraws: int = Field(
        0, ge=0, description="Further rollouts in a step, at most, to fill the places of dropped prompts with others."
    )
    overlong_penalty: int | None = Field(
        None, ge=1, description="Over so many tokens before max_new_tokens a charge on the reward grows from 0 to 1."
    )

    def problems(self) -> Iterator[Problem]:
        """Places to fill where none become free."""
        if self.redraws and not self.drop_equal_groups:
            message = f"{self.redraws}, but no prompt is dropped; expected drop_equal_groups: true beside it, or 0"
            yield ("redraws",), message


class GroupRelative(Method):
    """`algorithm: grpo`."""

    name = "grpo"
    summary = "rewards relative to the prompt's samples, the ratio of tokens clipped"
    page = "docs/algorithms/grpo.md"
    Options = GrpoOptions
    options: GrpoOptions
    needs = Needs(samples_per_prompt=2)
    metrics = {
        "clip_ratio": "share of tokens (responses with ratio: sequence) whose gradient the clip took away",
        "clip_ratio/low_mean": "those of them at the lower end",
        "clip_ratio/high_mean": "those of them at the upper end",
        "dropped_groups": "share of the prompts drawn whose responses all had one reward and were left out",
        "redraws": "further rollouts that were drawn to fill their places",
    }

    @classmethod
    def problems(cls, config: "PolicyOptimization") -> Iterator[Problem]:
        """See `Method.problems`."""
        yield from super().problems(config)
        options = config.algorithm
        if config.kl_target is not None and isinstance(options, GrpoOptions) and options.kl_in == "loss":
            message = "the weight of a KL in the loss is compiled in; expected kl_in: reward, or no kl_target"
            yield ("kl_target",), message
        over = options.overlong_penalty if isinstance(options, GrpoOptions) else None
        if over is not None and over > config.max_new_tokens:
            message = f"{over} is over max_new_tokens {config.max_new_tokens}; expected at most that"
            yield ("algorithm", "overlong_penalty"), message

    @property
    def most_redraws(self) -> int:
        """See `Method.most_redraws`."""
        return self.options.redraws

    def counts(self, rewards: np.ndarray) -> np.ndarray:
        """See `Method.counts`: equation 11 of DAPO, for rewards of any kind."""
        return np.ptp(rewards, axis=1) > 0 if self.options.drop_equal_groups else super().counts(rewards)

    @property
    def charges_kl(self) -> bool:
        """See `Method.charges_kl`."""
        return self.options.kl_in == "reward"

    def returns(self, scored: Scored, config: "PolicyOptimization") -> np.ndarray:
        """See `Method.returns`; perhaps with the soft penalty for length."""
        from pipelines.algorithms.length_penalties import soft_overlong_penalty

        charged = super().returns(scored, config)
        if self.options.overlong_penalty is None:
            return charged
        lengths = scored.rollout.lengths
        return charged - soft_overlong_penalty(lengths, config.max_new_tokens, self.options.overlong_penalty)

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """See `Method.advantages`."""
        from pipelines.algorithms.advantages import group_mean, group_normalized
        from pipelines.stages.policy_optimization.updates import on_device

        formula = group_normalized if self.options.standard_deviation else group_mean
        return on_device(formula, rewards).ravel()

    def batch_arrays(self, scored: Scored, config: "PolicyOptimization") -> dict[str, np.ndarray]:
        """See `Method.batch_arrays`."""
        arrays = super().batch_arrays(scored, config)
        if self.options.kl_in == "loss":
            arrays["reference_log_probs"] = scored.reference_log_probs
        return arrays

    def loss(self, config: "PolicyOptimization") -> LossFunction:
        """See `Method.loss`."""
        from pipelines.stages.policy_optimization.token_loss import TokenLoss

        return TokenLoss(
            config.temperature,
            config.trusted_range,
            config.max_new_tokens,
            self.options.aggregation,
            self.options.clip_range_high,
            self.options.ratio,
            config.kl_weight if self.options.kl_in == "loss" else 0.0,
        )

    def count_units(self, batch: Mapping[str, np.ndarray]) -> int:
        """See `Method.count_units`."""
        from pipelines.stages.policy_optimization.token_loss import count_units

        return count_units(batch, self.options.aggregation)

    def figures(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """See `Method.figures`."""
        from pipelines.stages.policy_optimization.token_loss import token_figures

        return token_figures(arrays)
