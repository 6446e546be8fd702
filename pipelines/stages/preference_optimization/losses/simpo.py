"""Simple preference optimization: mean log-probabilities in place of log-ratios, with a margin; no reference.

loss = -log sigmoid(beta (mean log-probability of chosen - that of rejected) - gamma).

Source: Meng et al. 2024, arXiv:2405.14734, equation 6.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss


class SimPO(PairLoss):
    """`loss: simpo`."""

    summary = "log-probabilities a token with a margin, without a reference"
    has_reference: ClassVar[bool] = False

    name: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0, description="Weight of the log-probabilities.")
    gamma: float = Field(1.0, ge=0, description="How much higher the reward of the chosen answer is to be.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="How likely a preference is taken to be wrong.")

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import logistic_loss

        return logistic_loss(self.rewards(chosen) - self.rewards(rejected) - self.gamma, self.label_smoothing)

    def rewards(self, answers: Answers) -> Any:
        """See `PairLoss.rewards`."""
        return self.beta * answers.mean_log_probs
