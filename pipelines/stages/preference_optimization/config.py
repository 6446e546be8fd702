"""What a preference optimization stage is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import Problem, TrainingOptions, Use
from pipelines.schema.data import Preferences
from pipelines.schema.named import one_of
from pipelines.schema.roles import Names, Product
from pipelines.stages.preference_optimization.losses.base import PairLoss
from pipelines.stages.preference_optimization.losses.registry import LOSSES

if TYPE_CHECKING:
    Loss = PairLoss
else:
    Loss = one_of(LOSSES)


class PreferenceOptimization(TrainingOptions):
    """Learns from preferences directly, as DPO does: no reward model, no sampling."""

    produces: ClassVar[Product] = "policy"
    is_headline: ClassVar[bool] = True
    elsewhere = {
        **dict.fromkeys(("preference_tuning", "direct_preference_optimization"), ""),
        **{name: f"`loss: {name}`" for name in LOSSES},
    }

    kind: Literal["preference_optimization"]
    data: Preferences = Field(description="A preference_collection stage, or a file with chosen and rejected.")
    loss: Loss = Field(
        next(iter(LOSSES.values()))(),
        description="; ".join(f"{name}: {loss.summary}" for name, loss in LOSSES.items())
        + ". With options {name: dpo, beta: 0.05}.",
    )
    reference: Annotated[str | None, Names("policy")] = Field(
        None,
        min_length=1,
        description="Stage, model folder or file that log-ratios are taken to; default the starting model.",
    )
    temperature: float = Field(1.0, gt=0, description="Of the log-probabilities; 1 is the model as it is.")

    def reads(self) -> tuple[Use, ...]:
        """Pairs."""
        return ("preference",)

    def problems(self) -> Iterator[Problem]:
        """A reference that the loss does not look at."""
        yield from super().problems()
        if self.reference is not None and not self.loss.has_reference:
            names = ", ".join(name for name, loss in LOSSES.items() if loss.has_reference)
            message = f"{self.loss.name} has no reference; expected none, or one of the losses {names}"
            yield ("reference",), message
