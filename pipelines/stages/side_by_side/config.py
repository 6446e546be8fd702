"""What a side by side is asked for."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.schema.base import DtypePolicy, Encoding, Problem, StageConfig, Use, response_room_problems
from pipelines.schema.data import Data, TaskData
from pipelines.schema.named_data import NamedSources, name_problems
from pipelines.schema.pairwise import Judging
from pipelines.schema.roles import LocalFile, Names


def _sets_tag(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<one>"


class SideBySide(Judging, StageConfig):
    """Pairs of answers before a judge that sees both: of two policies to the same prompts, or of rows with a known
    choice."""

    elsewhere = dict.fromkeys(
        ("auto_rater", "autorater", "llm_judge", "llm_as_a_judge", "arena", "mt_bench", "alpaca_eval", "pairwise"), ""
    )

    kind: Literal["side_by_side"]
    compare: list[Annotated[str, Names("any_policy")]] | None = Field(
        None,
        min_length=2,
        description="Stages, model folders, .gguf files, hub ids; each is compared with the first. Without it the "
        "answers are those of the rows, chosen against rejected, and the judge is measured by them.",
    )
    data: Annotated[
        Annotated[Data, Tag("<one>")] | Annotated[NamedSources, Tag("<list>")],
        Discriminator(_sets_tag),
    ] = Field(description="Held-out prompts, or a list of sets of them with names, which are reported apart.")
    prompts: int = Field(512, ge=1, description="At most so many prompts of each set.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, ge=0, description="Of the responses; 0 is greedy.")
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    max_length: int = Field(1024, ge=2, description="Tokens of a prompt and its response.")
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy, of the policies and the judge.")
    samples_kept: int = Field(20, ge=0, description="Prompts whose responses are shown in the report.")
    export: bool = Field(False, description="Write the pairs for human raters, who do not see whose answer is which.")
    ratings: Annotated[str | None, LocalFile(must_exist=True)] = Field(
        None, min_length=1, description="File with the human ratings of exported pairs."
    )

    def reads(self) -> tuple[Use, ...]:
        """Prompts, or pairs where nothing is sampled."""
        return ("prompt",) if self.compare else ("preference",)

    def encoding(self) -> Encoding | None:
        """Prompts that leave room for a response, with the first policy's tokenizer."""
        if not self.compare:
            return None
        return Encoding(self.compare[0], self.max_length, room=self.max_new_tokens, most_rows=self.prompts)

    def problems(self) -> Iterator[Problem]:
        """A policy or a set that is named twice, and what asks for two things at once."""
        yield from super().problems()
        if self.compare:
            yield from response_room_problems(self.max_new_tokens, self.max_length)
            if len(set(self.compare)) < len(self.compare):
                yield ("compare",), f"a policy is named twice: {', '.join(self.compare)}"
        sets = self.data if isinstance(self.data, list) else [self.data]
        if isinstance(self.data, list):
            yield from name_problems(self.data, ("data",))
        for place, one in enumerate(sets):
            if not self.compare and isinstance(one, TaskData):
                path = ("data", place) if isinstance(self.data, list) else ("data",)
                yield path, "the built-in task has prompts alone; expected policies that answer them: compare: [a, b]"
        if self.ratings is not None and not self.compare:
            yield ("ratings",), "the rows say already what people prefer; expected compare, or no ratings"
