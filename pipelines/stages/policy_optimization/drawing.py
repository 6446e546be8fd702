"""What a step learns from: prompts, responses to them and their scores; with an algorithm that leaves prompts out, also
further rollouts of other prompts in their places."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.sampling.prompts import Prompts
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.scoring.raters import Rater, Scores
from pipelines.stages.context import StageContext
from pipelines.stages.policy_optimization.methods.base import Method
from pipelines.training.batch_order import epoch_order


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A scored rollout of p prompts with k responses each.

    Attributes:
        rollout, scores: of n = p * k responses. counts: bool (n,), False where nothing is learned from a response.
        figures: `dropped_groups`, of all prompts drawn the share that the algorithm left out; `redraws`, rollouts after
            the first.
    """

    rollout: Rollout
    scores: Scores
    counts: np.ndarray
    figures: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a step's rollout comes about.

    Args:
        sampling: draws responses. prompts: of the stage. rater: scores them. method: says which prompts count.
        samples_per_prompt: k.
    """

    sampling: Sampling
    prompts: Prompts
    rater: Rater
    method: Method
    samples_per_prompt: int

    def draw(self, batches: Iterator[np.ndarray], step: int) -> Drawn:
        """Sample and score the prompts of a step, and again while some do not count and redraws are left.

        Each further rollout takes as many prompts as the first, which is the shape that is compiled; those of them that
        count fill the places of those that do not, in the order drawn, and what is left over is not learned from. Where
        no prompt counts at all, all do: an update is divided by what counts.

        Args:
            batches: rows of p prompts each; one is taken for each rollout. step: key of the draws.
        """
        k = self.samples_per_prompt
        drawn = [self._rollout(next(batches), step)]
        counts = [self._counts(drawn[0][1])]
        size = len(counts[0])
        while np.concatenate(counts).sum() < size and len(drawn) <= self.method.most_redraws:
            drawn.append(self._rollout(next(batches), f"{step}, redraw {len(drawn)}"))
            counts.append(self._counts(drawn[-1][1]))
        is_good = np.concatenate(counts)
        places = np.arange(size)
        free, others = np.flatnonzero(~is_good[:size]), size + np.flatnonzero(is_good[size:])
        filled = min(len(free), len(others))
        places[free[:filled]] = others[:filled]
        rows = (places[:, None] * k + np.arange(k)).reshape(-1)
        rollouts, scores = zip(*drawn, strict=True)
        counted = is_good[places] if is_good.any() else np.ones(size, bool)
        return Drawn(
            _joined(rollouts, rows),
            Scores(
                np.concatenate([one.total for one in scores])[rows],
                {name: np.concatenate([one.parts[name] for one in scores])[rows] for name in scores[0].parts},
            ),
            np.repeat(counted, k),
            {"dropped_groups": float(1 - is_good.mean()), "redraws": float(len(drawn) - 1)},
        )

    def _rollout(self, rows: np.ndarray, step: int | str) -> tuple[Rollout, Scores]:
        rollout = self.sampling.sample(self.prompts, rows, self.samples_per_prompt, step)
        return rollout, self.rater.score([self.prompts.examples[i] for i in rollout.prompt_index], rollout)

    def _counts(self, scores: Scores) -> np.ndarray:
        return self.method.counts(scores.total.reshape(-1, self.samples_per_prompt))


def prompt_batches(rows: np.ndarray, size: int, context: StageContext) -> Iterator[np.ndarray]:
    """`size` prompts after `size` prompts, without end: epoch after epoch, each in its own order, without a gap."""
    waiting, epoch = np.zeros(0, np.int64), 0
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rows[epoch_order(context.seed, context.name, epoch, len(rows))]])
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]


def _joined(rollouts: Sequence[Rollout], rows: np.ndarray) -> Rollout:
    """Some rows of several rollouts of one shape, counted through."""

    def chosen(values: Sequence[Any]) -> Any:
        if values[0] is None or isinstance(values[0], int):
            return values[0]
        if isinstance(values[0], list):
            together = [text for texts in values for text in texts]
            return [together[row] for row in rows.tolist()]
        return np.concatenate(values)[rows]

    names = [field.name for field in dataclasses.fields(Rollout)]
    return Rollout(**{name: chosen([getattr(one, name) for one in rollouts]) for name in names})
