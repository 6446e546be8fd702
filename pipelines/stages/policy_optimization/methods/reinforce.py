"""REINFORCE with a running mean of the rewards as baseline.

A = R - running mean of earlier rollouts' rewards, which starts at the mean reward of the tuned model; the loss is that
of `rloo`.

Source: Williams 1992.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.stages.policy_optimization.methods.base import LossFunction, Method

if TYPE_CHECKING:
    from pipelines.stages.policy_optimization.config import PolicyOptimization


class RunningMean(Method):
    """`algorithm: reinforce`.

    Attributes:
        baseline: float, the running mean now.
    """

    name = "reinforce"
    summary = "the baseline is a running mean"
    page = "docs/algorithms/reinforce.md"
    metrics = {"clip_ratio": "share of responses whose gradient the clip took away"}

    baseline: float

    def start(self, first_reward: float) -> None:
        """See `Method.start`."""
        self.baseline = first_reward

    def memory(self) -> dict[str, Any]:
        """See `Method.memory`."""
        return {"baseline": self.baseline}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """See `Method.remember`."""
        self.baseline = memory["baseline"]

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """See `Method.advantages`; moves the baseline on."""
        from pipelines.algorithms.advantages import moving_average
        from pipelines.stages.policy_optimization.updates import on_device

        found, baseline = on_device(moving_average, rewards, self.baseline)
        self.baseline = float(baseline)
        return found.reshape(-1)

    def loss(self, config: "PolicyOptimization") -> LossFunction:
        """See `Method.loss`."""
        from pipelines.stages.policy_optimization.updates import policy_loss

        return policy_loss(config.temperature, config.trusted_range)
