"""A judge of pairs, as a workflow says it: who judges, by which rubric, in which order, and how it answers."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.schema.base import Problem, Settings
from pipelines.schema.ensembles import AnEnsemble, Ensemble, as_said, ensemble_tag
from pipelines.schema.functions import ScoringFunction, named_or_function
from pipelines.schema.roles import LocalFile, Names

JUDGE_TAG = "<judge>"
RuleName = Literal["longest", "shortest", "random"]
Answer = Literal["likelihood", "reasoning"]
Order = Literal["both", "shuffled"]


class JudgeModel(Settings):
    """A Gemma that judges."""

    model: Annotated[str, Names("any_policy", unless="base_url")] = Field(
        min_length=1,
        description="Stage, model folder, .gguf file or hub id; with base_url the name the endpoint knows.",
    )
    chat_template: Literal["auto"] | bool = Field(
        "auto", description="Ask in turns; auto: a model that was tuned to them."
    )
    max_length: int = Field(4096, ge=64, description="Tokens of a question and its answer; longer ones are counted.")
    batch_tokens: int = Field(8192, ge=1, description="Positions of a forward pass, from which the rows follow.")

    @property
    def source(self) -> str:
        """What figures call it."""
        return self.model


class JudgeEndpoint(Settings):
    """A model behind an OpenAI-compatible endpoint, such as vLLM, llama.cpp or a hosted one."""

    base_url: str = Field(
        pattern=r"^https?://[^/\s]+", description="Up to and with the version: http://localhost:8000/v1."
    )
    model: str = Field(min_length=1, description="The model's name there.")
    key_variable: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the key; default no key.",
    )
    timeout: float = Field(120.0, gt=0, description="Seconds for which the endpoint may say nothing.")
    retries: int = Field(6, ge=0, description="Further tries of a question after time-outs, 429 and 5xx.")
    patience: float = Field(600.0, ge=0, description="Seconds of waiting between the tries of one question, at most.")
    at_once: int = Field(4, ge=1, description="Questions asked at the same time.")

    @property
    def source(self) -> str:
        """What figures call it."""
        return f"{self.model} at {self.base_url}"

    def problems(self) -> Iterator[Problem]:
        """A key that is not there."""
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            yield ("key_variable",), f"the environment variable {self.key_variable} is not set; put the key into it"


def _judge_tag(value: Any) -> str:
    if isinstance(value, str):
        return "<rule>"
    is_endpoint = isinstance(value, JudgeEndpoint) or (isinstance(value, Mapping) and "base_url" in value)
    return "<endpoint>" if is_endpoint else "<model>"


JudgeSource = Annotated[
    Annotated[RuleName, Tag("<rule>")]
    | Annotated[JudgeModel, Tag("<model>")]
    | Annotated[JudgeEndpoint, Tag("<endpoint>")],
    Discriminator(_judge_tag),
]


class Judging(Settings):
    """A judge that sees two answers at once, and how it is asked."""

    judge: JudgeSource = Field(
        description="{model: ...}, {base_url: ..., model: ...}, or a rule to compare with: longest, shortest, random."
    )
    rubric: Annotated[str | None, LocalFile(must_exist=True)] = Field(
        None, min_length=1, description="Text file with what makes an answer good; default one by the set's name."
    )
    order: Order = Field(
        "both", description="both asks with either answer first, and contradictions are ties; shuffled asks once."
    )
    answer: Answer = Field(
        "likelihood", description="likelihood compares the chances of the two labels; reasoning has it think first."
    )
    verdict_tokens: int = Field(512, ge=8, description="Tokens of an answer with reasoning.")

    @property
    def judge_source(self) -> str:
        """What figures call the judge."""
        return self.judge if isinstance(self.judge, str) else self.judge.source

    def problems(self) -> Iterator[Problem]:
        """A rule that would be told something, and an answer that fills all there is room for."""
        if isinstance(self.judge, str):
            if self.rubric is not None:
                yield ("rubric",), f"{self.judge} reads none; expected a model as judge, or no rubric"
            if self.answer == "reasoning":
                yield ("answer",), f"{self.judge} does not reason; expected a model as judge, or likelihood"
        elif isinstance(self.judge, JudgeModel) and self.answer == "reasoning":
            if self.verdict_tokens >= self.judge.max_length:
                message = f"{self.verdict_tokens} leaves no room for a question; judge.max_length is"
                yield ("verdict_tokens",), f"{message} {self.judge.max_length}"


def _rater_tag(value: Any) -> str | None:
    is_judge = isinstance(value, Judging) or (isinstance(value, Mapping) and "judge" in value)
    return JUDGE_TAG if is_judge else ensemble_tag(value)


if TYPE_CHECKING:
    PairRater = str | ScoringFunction | Ensemble | Judging
else:
    PairRater = named_or_function("rater", AnEnsemble, Annotated[Judging, Tag(JUDGE_TAG)], tag=_rater_tag)
    """The type of a key that takes what scores responses one by one, or a judge of pairs."""


def rater_source(rater: PairRater) -> str:
    """What rates, as one text."""
    return f"judge:{rater.judge_source}" if isinstance(rater, Judging) else as_said(rater)
