"""What scores responses, as data: the rules that raters, rewards and judges share."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pipelines.schema.base import Problem, Settings
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.roles import FUNCTION_PREFIX, GOLD, Names, Reference, references_of


class ToxicityModel(Settings):
    """A model that scores toxicity, in place of a list of swear words. Abstract."""

    classifier: Annotated[str | None, Names("reward_model")] = Field(
        None, min_length=1, description="Stage or folder of a reward model that learned to prefer toxic texts."
    )
    hub: str | None = Field(None, min_length=1, description="Hub id or folder of a text classifier for transformers.")

    @property
    def has_model(self) -> bool:
        """True where one is named."""
        return self.classifier is not None or self.hub is not None


def scorer_problems(config: Settings, data: object) -> Iterator[Problem]:
    """What is wrong between the functions that a stage scores with and its data.

    Args:
        config: the stage. data: its `data`, which they need answers or the built-in task from.
    """
    for reference in references_of(config):
        if reference.is_function:
            yield from _function_problems(reference, data)


def gold_problems(path: tuple[str, ...], data: object, instead: str) -> Iterator[Problem]:
    """A gold reward where there is none."""
    if not isinstance(data, TaskData):
        yield path, f"the gold reward scores the built-in task only; expected data: {{task: ...}}, or {instead}"


def _function_problems(reference: Reference, data: object) -> Iterator[Problem]:
    if reference.name == GOLD and GOLD in reference.role.functions:
        yield from gold_problems(reference.path, data, "another rater")  # type: ignore[arg-type]
    elif reference.name.removeprefix(FUNCTION_PREFIX) == "exact_answer":
        if isinstance(data, FileData) and data.answer is None:
            yield reference.path, "exact_answer needs the known answers; name their column: data: {..., answer: COLUMN}"
