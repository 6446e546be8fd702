"""DPO whose loss is, over labels of which a known share is wrong, that of the right ones.

loss = (-(1 - e) log sigmoid(x) + e log sigmoid(-x)) / (1 - 2 e), x as in `dpo`.

Source: Chowdhury et al. 2024, arXiv:2403.00409.
"""

from typing import Any, Literal

from pydantic import Field

from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss


class RobustDPO(PairLoss):
    """`loss: robust`."""

    summary = "dpo, unbiased where a known share of the preferences is wrong"

    name: Literal["robust"] = "robust"
    label_noise: float = Field(0.1, ge=0, lt=0.5, description="Share of the preferences that are wrong.")

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import robust_loss

        return robust_loss(self.rewards(chosen) - self.rewards(rejected), self.label_noise)
