"""What an evaluation is asked for."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipelines.schema.base import Bits, DtypePolicy, Encoding, Problem, StageConfig, Use, response_room_problems
from pipelines.schema.data import Data, FileData
from pipelines.schema.ensembles import RaterName
from pipelines.schema.roles import Names
from pipelines.schema.scoring import scorer_problems


class Evaluation(StageConfig):
    """Two or more policies side by side on held-out prompts."""

    elsewhere = dict.fromkeys(("eval", "evaluate", "judge"), "")

    kind: Literal["evaluation"]
    compare: list[Annotated[str, Names("policy")]] = Field(
        min_length=1, description="Stages or model folders; the first is the baseline."
    )
    data: Data = Field(description="Held-out prompts.")
    judge: RaterName = Field(
        "gold",
        description="gold, exact_answer, function:<name>, reward_model:<stage>, {function: ...} or {ensemble: [...]}.",
    )
    quantize_reward_model: Bits | None = Field(
        None, description="Hold the kernels of a reward model that scores in 8 or 4 bits."
    )
    prompts: int = Field(512, ge=1, description="At most so many prompts.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, ge=0, description="0 is greedy.")
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    samples_kept: int = Field(20, ge=0, description="Prompts whose responses are shown in the report.")
    reference: Annotated[str | None, Names("policy")] = Field(
        None, min_length=1, description="Model the KL is measured to; default the first of compare."
    )
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy.")
    max_length: int = Field(1024, ge=2, description="Tokens of a prompt and its response.")

    def reads(self) -> tuple[Use, ...]:
        """Prompts, and their responses where there are any, for the perplexity."""
        has_responses = not isinstance(self.data, FileData) or self.data.has_responses
        return ("prompt", "instruction") if has_responses else ("prompt",)

    def encoding(self) -> Encoding | None:
        """Prompts that leave room for a response, with the reference's tokenizer."""
        model = self.reference or self.compare[0]
        return Encoding(model, self.max_length, room=self.max_new_tokens, most_rows=self.prompts)

    def problems(self) -> Iterator[Problem]:
        """A judge that cannot judge these data, or a policy that is named twice."""
        yield from scorer_problems(self, self.data)
        yield from response_room_problems(self.max_new_tokens, self.max_length)
        if len(set(self.compare)) < len(self.compare):
            yield ("compare",), f"a policy is named twice: {', '.join(self.compare)}"
