"""Identity preference optimization: log-ratios a token are moved apart by 1 / (2 beta) and no farther.

loss = (mean log-ratio of chosen - mean log-ratio of rejected - 1 / (2 beta)) ** 2.

Source: Azar et al. 2023, arXiv:2310.12036.
"""

from typing import Any, Literal

from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss


class IPO(PairLoss):
    """`loss: ipo`."""

    summary = "log-ratios a token, moved apart by 1 / (2 beta) and no farther"

    name: Literal["ipo"] = "ipo"

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import squared_loss

        return squared_loss(chosen.mean_log_ratios - rejected.mean_log_ratios, self.beta)

    def rewards(self, answers: Answers) -> Any:
        """See `PairLoss.rewards`."""
        return self.beta * answers.mean_log_ratios
