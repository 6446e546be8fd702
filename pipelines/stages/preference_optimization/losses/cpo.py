"""Contrastive preference optimization: DPO with a uniform reference, and tuning on the chosen answers.

loss = -log sigmoid(beta (log-probability of chosen - that of rejected)) + nll_weight * NLL of chosen.

Source: Xu et al. 2024, arXiv:2401.08417, equation 5.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss


class CPO(PairLoss):
    """`loss: cpo`."""

    summary = "dpo with a uniform reference plus tuning on the chosen answers"
    has_reference: ClassVar[bool] = False

    name: Literal["cpo"] = "cpo"
    beta: float = Field(0.1, gt=0, description="Weight of the log-probabilities.")
    nll_weight: float = Field(1.0, ge=0, description="Weight of the chosen answers' mean loss a token.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="How likely a preference is taken to be wrong.")

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import logistic_loss

        return logistic_loss(self.rewards(chosen) - self.rewards(rejected), self.label_smoothing)

    def rewards(self, answers: Answers) -> Any:
        """See `PairLoss.rewards`."""
        return self.beta * answers.log_probs
