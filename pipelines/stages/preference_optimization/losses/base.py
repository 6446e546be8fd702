"""What a loss of preference optimization says about itself. Naming one, as `validate` does, loads no Keras.

A loss is one file here and one line in `registry.py`: its options as a workflow gives them, and which formula of
`pipelines/algorithms/preference_losses.py` it computes with them, imported where it computes.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from pipelines.schema.named import Named

METRICS = {
    "rewards/chosen": "what the policy says that a chosen answer is worth",
    "rewards/rejected": "the same of a rejected one",
    "rewards/margins": "their difference",
    "rewards/accuracies": "share of pairs whose chosen answer is worth more; a tie is wrong",
    "logps/chosen": "log-probability of a chosen answer",
    "logps/rejected": "the same of a rejected one",
    "nll_loss": "loss of the chosen answers, nats a token, whatever its weight",
}
"""Name → meaning of what every loss logs, means over pairs."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """The chosen answers of n pairs, or the rejected ones.

    Attributes:
        log_probs: float (n,), of whole answers under the policy.
        reference_log_probs: float (n,), the same under the reference; zeros where the loss needs none.
        lengths: float (n,), tokens; at least 1.
    """

    log_probs: Any
    reference_log_probs: Any
    lengths: Any

    @property
    def log_ratios(self) -> Any:
        """Policy over reference: float (n,)."""
        return self.log_probs - self.reference_log_probs

    @property
    def mean_log_ratios(self) -> Any:
        """Log-ratios a token: float (n,)."""
        return self.log_ratios / self.lengths

    @property
    def mean_log_probs(self) -> Any:
        """Log-probabilities of the policy a token: float (n,)."""
        return self.log_probs / self.lengths


class PairLoss(Named, abc.ABC):
    """A loss with its options. Abstract; the files beside this one are final.

    Attributes:
        summary: half a sentence for the field's description.
        page: what documents it, from the root of the repository: its formula, papers and figures.
        has_reference: whether the policy is measured against a reference.
        has_kl: whether it needs an estimate of the policy's KL, see `learning.py`.
        metrics: name → meaning of what training logs beside the loss; the same on held-out pairs behind `eval_`.
    """

    summary: ClassVar[str]
    page: ClassVar[str] = "docs/algorithms/preference_optimization.md"
    has_reference: ClassVar[bool] = True
    has_kl: ClassVar[bool] = False
    metrics: ClassVar[Mapping[str, str]] = METRICS

    beta: float = Field(0.1, gt=0, description="Weight of the log-ratios; the smaller, the farther a policy may go.")
    nll_weight: float = Field(0.0, ge=0, description="Weight of the chosen answers' mean loss a token, added to it.")

    @abc.abstractmethod
    def of_pairs(self, chosen: Answers, rejected: Answers, kl: Any) -> Any:
        """The loss of each pair, without the NLL term.

        Args:
            kl: float (), an estimate of the policy's KL to the reference; 0 where `has_kl` is False.

        Returns:
            float (n,), differentiable.
        """

    def rewards(self, answers: Answers) -> Any:
        """What the policy says that answers are worth, for metrics: float (n,); their difference is what the loss
        compares."""
        return self.beta * answers.log_ratios
