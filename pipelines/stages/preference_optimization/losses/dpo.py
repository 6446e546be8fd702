"""Direct preference optimization: the policy's own log-ratios as the rewards of a Bradley-Terry model.

loss = -log sigmoid(beta (log-ratio of chosen - log-ratio of rejected)).

Source: Rafailov et al. 2023, arXiv:2305.18290.
"""

from typing import Any, Literal

from pydantic import Field

from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss


class DPO(PairLoss):
    """`loss: dpo`."""

    summary = "log-ratios as the rewards of a Bradley-Terry model"

    name: Literal["dpo"] = "dpo"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="How likely a preference is taken to be wrong.")
    length_normalized: bool = Field(False, description="Log-ratios a token, so that length alone earns nothing.")

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import logistic_loss

        return logistic_loss(self.rewards(chosen) - self.rewards(rejected), self.label_smoothing)

    def rewards(self, answers: Answers) -> Any:
        """See `PairLoss.rewards`."""
        return self.beta * (answers.mean_log_ratios if self.length_normalized else answers.log_ratios)
