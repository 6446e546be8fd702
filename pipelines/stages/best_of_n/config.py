"""What a best-of-n stage is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import Bits, Encoding, ModelStage, Problem, Use, response_room_problems
from pipelines.schema.data import Data
from pipelines.schema.ensembles import Ensemble, or_ensemble
from pipelines.schema.functions import ScoringFunction
from pipelines.schema.roles import Product
from pipelines.schema.scoring import gold_problems, scorer_problems

if TYPE_CHECKING:
    Reward = str | ScoringFunction | Ensemble
else:
    Reward = or_ensemble("reward")


class BestOfN(ModelStage):
    """Samples several answers to each prompt and keeps the one with the highest reward, or the best few: what a reward
    is worth without training, and demonstrations for more tuning (rejection sampling)."""

    produces: ClassVar[Product] = "demonstrations"
    elsewhere = dict.fromkeys(("rejection_sampling", "raft", "bon"), "")

    kind: Literal["best_of_n"]
    reward: Reward = Field(
        description="Stage, model folder or function that chooses; {function: ...} with settings, or {ensemble: [...]}."
    )
    quantize_reward_model: Bits | None = Field(
        None, description="Hold the kernels of a reward model that scores in 8 or 4 bits."
    )
    data: Data = Field(description="Prompts, with answers where a function needs them.")
    samples_per_prompt: int = Field(8, ge=2, description="Responses sampled for each prompt, n.")
    keep: int = Field(1, ge=1, description="Best answers of a prompt that are kept; equal ones once.")
    least_reward: float | None = Field(None, description="Answers of a lower reward are not kept; default all may be.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    gold: Literal["task"] | None = Field(
        None, description="task measures the built-in task's gold reward too; it chooses nothing."
    )

    def reads(self) -> tuple[Use, ...]:
        """Prompts."""
        return ("prompt",)

    def encoding(self) -> Encoding | None:
        """Prompts that leave room for a response."""
        return Encoding(self.from_, self.max_length, room=self.max_new_tokens)

    def problems(self) -> Iterator[Problem]:
        """A reward that cannot score these data."""
        yield from scorer_problems(self, self.data)
        yield from response_room_problems(self.max_new_tokens, self.max_length)
        if self.keep > self.samples_per_prompt:
            yield ("keep",), f"{self.keep} is over samples_per_prompt {self.samples_per_prompt}; expected at most that"
        if self.gold == "task":
            yield from gold_problems(("gold",), self.data, "leave `gold` out")
