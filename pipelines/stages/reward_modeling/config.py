"""What a reward modeling stage is asked for."""

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import TrainingOptions, Use
from pipelines.schema.data import Preferences
from pipelines.schema.roles import Product

SAMPLING_BATCH, LONGEST_SAMPLE = 64, 256
"""Responses of the tuned model at once, and their tokens at most, on which scores are normalised."""


class RewardModeling(TrainingOptions):
    """A Bradley-Terry reward model from preferences."""

    produces: ClassVar[Product] = "reward_model"
    elsewhere = dict.fromkeys(("reward", "rm", "reward_model"), "")

    kind: Literal["reward_modeling"]
    data: Preferences = Field(description="A preference_collection stage, or a file with chosen and rejected.")
    heldout_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the prompts whose pairs measure accuracy.")
    center_coefficient: float = Field(0.0, ge=0, description="Weight of the squared sum of the two scores.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="How likely a preference is taken to be wrong.")
    member: int = Field(
        0,
        ge=0,
        description="Each number draws other first weights of the head and the adapter: for members of an ensemble.",
    )
    normalize_prompts: int = Field(
        256, ge=0, description="Prompts whose samples of the tuned model set reward_mean and reward_std; 0 is off."
    )

    def reads(self) -> tuple[Use, ...]:
        """Pairs."""
        return ("preference",)
