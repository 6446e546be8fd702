"""Several reward models as one reward, as a workflow says it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Tag

from pipelines.schema.base import Problem, Settings
from pipelines.schema.functions import ScoringFunction, named_or_function
from pipelines.schema.roles import FUNCTION_PREFIX, REWARD_MODEL_PREFIX, Names

ENSEMBLE_TAG = "<ensemble>"
ENSEMBLE_STD = "ensemble_std"
"""What metrics call how far the members lie apart on a response, beside the members' names."""


class Ensemble(Settings):
    """Several reward models whose normalised scores are combined (arXiv:2310.02743)."""

    ensemble: list[Annotated[str, Names("member")]] = Field(
        min_length=2, description="Stages or model folders, each a reward model."
    )
    combine: Literal["mean", "minimum", "uncertainty"] = Field(
        "mean",
        description="Of the members' normalised scores; uncertainty: their mean minus uncertainty_weight times their "
        "variance.",
    )
    uncertainty_weight: float | None = Field(
        None,
        ge=0,
        description="What a variance of 1 over the members costs; default 1, for combine: uncertainty.",
    )

    @property
    def label(self) -> str:
        """What metrics call it."""
        return "ensemble"

    @property
    def weight(self) -> float:
        """`uncertainty_weight`, or its default."""
        return 1.0 if self.uncertainty_weight is None else self.uncertainty_weight

    @property
    def formula(self) -> str:
        """How the members' scores are combined: `mean`, `minimum`, or such as `mean - 0.5 variance`."""
        return self.combine if self.combine != "uncertainty" else f"mean - {self.weight:g} variance"

    @property
    def source(self) -> str:
        """In words, such as `minimum of reward_model:first, reward_model:second`; `ensemble_in` reads it."""
        members = [REWARD_MODEL_PREFIX + name.removeprefix(REWARD_MODEL_PREFIX) for name in self.ensemble]
        return self.formula + _OF + _AND.join(members)

    def problems(self) -> Iterator[Problem]:
        """A member that is named twice, or a weight of nothing."""
        members = [name.removeprefix(REWARD_MODEL_PREFIX) for name in self.ensemble]
        for place, name in enumerate(members):
            if name in members[:place]:
                message = f"{name!r} is named twice; its second vote says nothing new: name other reward models"
                yield ("ensemble", place), message
        if self.uncertainty_weight is not None and self.combine != "uncertainty":
            yield ("uncertainty_weight",), f"has no effect with combine: {self.combine}; expected combine: uncertainty"


_OF, _AND = " of ", ", "


def ensemble_in(said: str) -> tuple[str, list[str]]:
    """Formula and members, stages or folders, of an `Ensemble.source`; no members of anything else that scores."""
    formula, is_ensemble, members = said.partition(_OF + REWARD_MODEL_PREFIX)
    if not is_ensemble or said.startswith((FUNCTION_PREFIX, REWARD_MODEL_PREFIX)):
        return "", []
    return formula, members.split(_AND + REWARD_MODEL_PREFIX)


def ensemble_tag(value: Any) -> str | None:
    """The tag of an ensemble, as data or checked; None for anything else."""
    is_one = isinstance(value, Ensemble) or (
        isinstance(value, Mapping) and not Ensemble.model_fields.keys().isdisjoint(value)
    )
    return ENSEMBLE_TAG if is_one else None


AnEnsemble = Annotated[Ensemble, Tag(ENSEMBLE_TAG)]
"""A branch of a union that `ensemble_tag` tells from the others."""


def or_ensemble(role: str) -> Any:
    """The type of a key that takes a name in a role, a function with its settings, or an ensemble.

    Args:
        role: a key of `ROLES`.
    """
    return named_or_function(role, AnEnsemble, tag=ensemble_tag)


if TYPE_CHECKING:
    RaterName = str | ScoringFunction | Ensemble
else:
    RaterName = or_ensemble("rater")


def as_said(scorer: str | ScoringFunction | Ensemble) -> str:
    """What scores, as one text: its name, its function in words behind `function:`, or its ensemble in words."""
    if isinstance(scorer, str):
        return scorer
    return scorer.source if isinstance(scorer, Ensemble) else FUNCTION_PREFIX + scorer.source
