"""What an algorithm of policy optimization says about itself. Naming one, as `validate` does, loads no Keras.

An algorithm is one file here and one line in `registry.py`. The file imports its formulas (`pipelines/algorithms/`)
where it computes with them: that is what keeps `config.py`, which reads `needs`, light.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from pipelines.schema.base import Problem

LossFunction = Callable[[Any, Mapping[str, Any]], tuple[Any, dict[str, Any]]]
"""(model, micro-batch) → (loss (), aux), a sum over responses, as `Trainer` takes it."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a workflow must give an algorithm.

    Args:
        samples_per_prompt: at least so many responses a prompt.
        most_inner_updates: at most so many updates on a rollout; None for any number.
    """

    samples_per_prompt: int = 1
    most_inner_updates: int | None = None


class Method(abc.ABC):
    """An algorithm at work in one stage: it may keep state between steps. Abstract; the files beside this one are
    final.

    Attributes:
        name: as in `algorithm: NAME`. summary: half a sentence for the field's description.
        page: what documents it, from the root of the repository: its formula, papers and figures.
        needs: what a workflow must give it.
        metrics: name → meaning of what it logs beside the figures of every rollout.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    page: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    metrics: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def problems(cls, samples_per_prompt: int, inner_updates: int) -> Iterator[Problem]:
        """Where a workflow does not give what `needs` asks for."""
        least, most = cls.needs.samples_per_prompt, cls.needs.most_inner_updates
        if samples_per_prompt < least:
            message = f"{cls.name} compares the samples of a prompt; expected at least {least}, or another algorithm"
            yield ("samples_per_prompt",), message
        if most is not None and inner_updates > most:
            message = (
                f"{cls.name} cannot learn from a rollout more often; expected at most {most}, or another algorithm"
            )
            yield ("inner_updates",), message

    def start(self, first_reward: float) -> None:  # noqa: B027  most algorithms have nothing to start
        """Called once, before the first rollout.

        Args:
            first_reward: mean reward of the tuned model, on prompts that are not trained on.
        """

    @abc.abstractmethod
    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """How much better each response was than what it is compared with.

        Args:
            rewards: float (p, k), of the k responses to each of p prompts, KL and penalties charged.

        Returns:
            float32 (p * k,).
        """

    @abc.abstractmethod
    def loss(self, temperature: float, clip_range: float | None) -> LossFunction:
        """The loss of a micro-batch with `advantages`, `old_log_probs` and perhaps `importance_weights`, see
        `updates.update_batches`.

        Args:
            temperature: float > 0, of the sampling.
            clip_range: half-width of the trusted ratio, or None where each rollout is learned from once.
        """
