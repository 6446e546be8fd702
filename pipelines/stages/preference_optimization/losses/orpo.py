"""Odds ratio preference optimization: tuning on the chosen answers, and the odds of the two; no reference.

loss = nll_weight * NLL of chosen - beta log sigmoid(log(odds of chosen / odds of rejected)).

Source: Hong et al. 2024, arXiv:2403.07691, equation 6, where beta is lambda.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss


class ORPO(PairLoss):
    """`loss: orpo`."""

    summary = "tuning on the chosen answers plus the odds ratio of the two, without a reference"
    has_reference: ClassVar[bool] = False

    name: Literal["orpo"] = "orpo"
    beta: float = Field(0.1, gt=0, description="Weight of the odds ratio's loss.")
    nll_weight: float = Field(1.0, ge=0, description="Weight of the chosen answers' mean loss a token.")

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import odds_ratio_loss

        return self.beta * odds_ratio_loss(chosen.mean_log_probs, rejected.mean_log_probs)

    def rewards(self, answers: Answers) -> Any:
        """See `PairLoss.rewards`."""
        return self.beta * answers.mean_log_probs
