"""Kahneman-Tversky optimization: each answer by itself is wanted or not, measured from where the policy stands.

loss = (w_d (1 - sigmoid(beta (log-ratio of chosen - z))) + w_u (1 - sigmoid(beta (z - log-ratio of rejected)))) / 2,
z being the mean log-ratio of answers under prompts that they do not belong to, at least 0.

Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.stages.preference_optimization.losses.base import METRICS, Answers, PairLoss


class KTO(PairLoss):
    """`loss: kto`."""

    summary = "each answer by itself, wanted or not"
    has_kl: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, str]] = {**METRICS, "kl": "mean log-ratio of the mismatched answers, at least 0"}

    name: Literal["kto"] = "kto"
    desirable_weight: float = Field(1.0, ge=0, description="Weight of the chosen answers.")
    undesirable_weight: float = Field(1.0, ge=0, description="Weight of the rejected answers.")

    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """See `PairLoss.of_pairs`."""
        from pipelines.algorithms.preference_losses import prospect_loss

        sides = chosen.log_ratios, rejected.log_ratios
        return prospect_loss(*sides, kl, self.beta, self.desirable_weight, self.undesirable_weight)
