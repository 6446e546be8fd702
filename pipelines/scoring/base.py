"""What everything is that scores responses, and what it gives."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.data.columns import Prompt
from pipelines.host.errors import DataError
from pipelines.sampling.prompts import prompt_text
from pipelines.sampling.rollout import Rollout


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of n responses.

    Attributes:
        total: float64 (n,).
        parts: named components of it, float64 (n,) each, NaN where one does not apply; may be empty.
    """

    total: np.ndarray
    parts: dict[str, np.ndarray]


class Rater(abc.ABC):
    """Scores responses; higher is better. `name`: as in metric names. `source`: as a workflow would name it, kind
    included. `bounds`: lowest and highest score that is possible, None where there are none; intervals need them."""

    name: str
    source: str
    bounds: tuple[float, float] | None = None

    @abc.abstractmethod
    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        """Args: the prompt of each response (n entries), and the rollout of n responses.

        Raises:
            DataError: a score that is not finite, naming the prompt; or an answer that is missing.
        """

    def score_part(self, prompts: Sequence[Prompt], rollout: Rollout) -> np.ndarray:
        """Scores as one part of a sum: float64 (n,), NaN where this rater does not apply. As `score` otherwise."""
        return self.score(prompts, rollout).total


def part_means(parts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`rewards/<name>/mean` of each part, over the responses that it applies to; NaN where that is none."""
    applied = {name: values[~np.isnan(values)] for name, values in parts.items()}
    return {
        f"rewards/{name}/mean": float(values.mean()) if len(values) else math.nan for name, values in applied.items()
    }


def checked(name: str, total: np.ndarray, prompts: Sequence[Prompt], source: str = "the reward model") -> Scores:
    """Scores of which each is finite.

    Args:
        source: what the message sends its reader to.

    Raises:
        DataError: one is not, naming the prompt.
    """
    for prompt, value in zip(prompts, total, strict=True):
        if not math.isfinite(value):
            raise DataError(
                f"{prompt.origin}: the reward {name!r} is {value} for a response to the prompt "
                f"{prompt_text(prompt)[:200]!r}. Expected a finite number: one that is not would poison every response "
                f"to this prompt. Look at {source}."
            )
    return Scores(total, {})
