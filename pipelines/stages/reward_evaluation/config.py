"""What an evaluation of a reward model is asked for."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipelines.schema.base import Bits, DtypePolicy, Encoding, Overlong, Problem, Settings, StageConfig, Use
from pipelines.schema.data import Preferences
from pipelines.schema.roles import REWARD_MODEL_PREFIX, Names

Label = Annotated[str, Field(min_length=1, max_length=64)]


class PreferenceSet(Settings):
    """Preferences that are reported as one line."""

    name: Label = Field(description="What the report calls it.")
    section: Label | None = Field(
        None, description="Sets of one section are pooled, pair by pair; default a section of its own."
    )
    data: Preferences = Field(description="A preference_collection stage, or a file with chosen and rejected.")


class RewardEvaluation(StageConfig):
    """A reward model on several sets of preferences: how often it is right in each, and in the mean over sections."""

    elsewhere = dict.fromkeys(("rewardbench", "reward_bench", "rm_eval"), "")

    kind: Literal["reward_evaluation"]
    reward: Annotated[str, Names("reward_model")] = Field(
        min_length=1, description="Stage or model folder that is measured."
    )
    sets: list[PreferenceSet] = Field(min_length=1, description="Preferences that it was not trained on.")
    quantize_reward_model: Bits | None = Field(
        None, description="Hold the kernels of a reward model that scores in 8 or 4 bits."
    )
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy.")
    micro_batch_size: int = Field(64, ge=1, description="Sequences of full length a forward pass.")
    max_length: int = Field(1024, ge=2, description="Tokens of a prompt and its response.")
    overlong: Overlong = Field("drop", description="Pairs with a side over max_length; dropped ones are counted.")

    @property
    def model(self) -> str:
        """The stage or folder, without `reward_model:`."""
        return self.reward.removeprefix(REWARD_MODEL_PREFIX)

    def reads(self) -> tuple[Use, ...]:
        """Pairs."""
        return ("preference",)

    def encoding(self) -> Encoding | None:
        """With the reward model's tokenizer."""
        return Encoding(self.model, self.max_length, self.overlong)

    def problems(self) -> Iterator[Problem]:
        """Two sets of one name, or a section that is called like a set outside of it."""
        names = [one.name for one in self.sets]
        for place, one in enumerate(self.sets):
            if one.name in names[:place]:
                yield ("sets", place, "name"), f"two sets are called {one.name!r}; expected a name for each"
            if one.section in names and self.sets[names.index(one.section)].section is None:
                message = f"{one.section!r} is a set that is a section of its own; give that set the section too"
                yield ("sets", place, "section"), message
