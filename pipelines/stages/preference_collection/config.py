"""What a preference collection stage is asked for."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import Bits, Encoding, ModelStage, Problem, Use, response_room_problems
from pipelines.schema.data import Data
from pipelines.schema.pairwise import PairRater
from pipelines.schema.roles import LocalFile, Product
from pipelines.schema.scoring import scorer_problems


class PreferenceCollection(ModelStage):
    """Samples responses and has a rater choose: the paper's rating step."""

    produces: ClassVar[Product] = "preferences"
    elsewhere = dict.fromkeys(("rating", "preferences"), "")

    kind: Literal["preference_collection"]
    data: Data = Field(description="Prompts.")
    samples_per_prompt: int = Field(2, ge=2, description="Responses sampled for each prompt.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    rater: PairRater = Field(
        "gold",
        description="gold, a function such as exact_answer, reward_model:<stage>, {function: ...}, {ensemble: [...]}, "
        "or {judge: ...}, which sees both responses.",
    )
    noise: Literal["bradley_terry", "none"] = Field(
        "bradley_terry", description="bradley_terry draws the winner, none takes the better; a judge decides by itself."
    )
    noise_scale: float = Field(
        1.0, gt=0, description="Temperature of the draw: p = sigmoid(score difference / noise_scale)."
    )
    quantize_reward_model: Bits | None = Field(
        None, description="Hold the kernels of a reward model that scores in 8 or 4 bits."
    )
    export: bool = Field(False, description="Write the pairs for human raters.")
    ratings: Annotated[str | None, LocalFile(must_exist=True)] = Field(
        None, min_length=1, description="File with the human ratings of exported pairs."
    )

    def reads(self) -> tuple[Use, ...]:
        """Prompts."""
        return ("prompt",)

    def encoding(self) -> Encoding | None:
        """Prompts that leave room for a response."""
        return Encoding(self.from_, self.max_length, room=self.max_new_tokens)

    def problems(self) -> Iterator[Problem]:
        """A rater that cannot rate these data, or people who are asked and answer in one run."""
        yield from scorer_problems(self, self.data)
        yield from response_room_problems(self.max_new_tokens, self.max_length)
        if self.export and self.ratings is not None:
            message = (
                "`export` and `ratings` exclude each other: first export the pairs, then run again with the ratings"
            )
            yield ("export",), message
