"""REINFORCE with the prompt's other samples as baseline (leave one out).

A = R - mean of the other rewards of the prompt; loss = -mean(A log pi(response)); with several updates a rollout the
ratio of whole responses is clipped.

Source: Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipelines.stages.policy_optimization.methods.base import LossFunction, Method, Needs

if TYPE_CHECKING:
    from pipelines.stages.policy_optimization.config import PolicyOptimization


class LeaveOneOut(Method):
    """`algorithm: rloo`."""

    name = "rloo"
    summary = "the baseline is the mean of the prompt's other samples"
    page = "docs/algorithms/rloo.md"
    needs = Needs(samples_per_prompt=2)
    metrics = {"clip_ratio": "share of responses whose gradient the clip took away"}

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """See `Method.advantages`."""
        from pipelines.algorithms.advantages import leave_one_out
        from pipelines.stages.policy_optimization.updates import on_device

        return on_device(leave_one_out, rewards).reshape(-1)

    def loss(self, config: "PolicyOptimization") -> LossFunction:
        """See `Method.loss`."""
        from pipelines.stages.policy_optimization.updates import policy_loss

        return policy_loss(config.temperature, config.trusted_range)
