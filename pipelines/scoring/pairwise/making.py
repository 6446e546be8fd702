"""The judge of pairs that a workflow names."""

from pathlib import Path
from typing import Protocol

from gemma_keras import GemmaCausalLM
from pipelines.data.encoding import need_tokenizer
from pipelines.host.errors import ConfigError
from pipelines.host.paths import find_path
from pipelines.sampling.frozen import frozen_dtype
from pipelines.schema.pairwise import JudgeEndpoint, JudgeModel, Judging
from pipelines.scoring.pairwise.base import PairwiseJudge
from pipelines.scoring.pairwise.endpoint import EndpointJudge
from pipelines.scoring.pairwise.local import LikelihoodJudge, ReasoningJudge
from pipelines.scoring.pairwise.rules import RuleJudge


class Surroundings(Protocol):
    """Where models are found; a stage's context is one."""

    seed: int
    base_folder: Path

    def model_source(self, from_: str | None) -> str | Path:
        """A folder or file for a stage's name or a path."""

    def was_tuned_to_turns(self, name: str) -> bool:
        """Whether a model answers in turns."""


def make_judge(settings: Judging, context: Surroundings, dtype: str) -> PairwiseJudge:
    """The judge.

    Args:
        settings: who it is and how it answers. dtype: Keras dtype policy of a model of our own.

    Raises:
        ConfigError: no such model, or the variable with the endpoint's key is not set.
    """
    judge, with_reasoning = settings.judge, settings.answer == "reasoning"
    if isinstance(judge, str):
        return RuleJudge(judge, context.seed)
    if isinstance(judge, JudgeEndpoint):
        return EndpointJudge(judge, with_reasoning, settings.verdict_tokens)
    model = GemmaCausalLM.from_preset(context.model_source(judge.model), dtype=frozen_dtype(dtype))
    need_tokenizer(model.tokenizer)
    with_turns = asks_in_turns(judge, context)
    options = (judge.source, model, with_turns, judge.max_length, judge.batch_tokens)
    return ReasoningJudge(*options, settings.verdict_tokens) if with_reasoning else LikelihoodJudge(*options)


def asks_in_turns(judge: JudgeModel, context: Surroundings) -> bool:
    """Whether the judge is asked in a turn."""
    return context.was_tuned_to_turns(judge.model) if judge.chat_template == "auto" else judge.chat_template


def own_rubric(settings: Judging, context: Surroundings) -> str | None:
    """The rubric of the workflow's file; None where the built-in ones are meant.

    Raises:
        ConfigError: no such file, or nothing in it.
    """
    if settings.rubric is None:
        return None
    path = find_path(settings.rubric, context.base_folder)
    try:
        text = "" if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the rubric {settings.rubric!r} cannot be read: {error}; expected a text file in UTF-8"
        ) from None
    if not text:
        raise ConfigError(
            f"no file {settings.rubric!r} with a rubric; expected a text that says what makes an answer good"
        )
    return text
