"""Who takes part in policy optimization, how far the steps came, and what of both a saved state holds."""

import dataclasses

from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer
from pipelines.sampling.rollout_copy import RolloutCopy
from pipelines.stages.policy_optimization.behaviour import BehaviourScorer, Scorer
from pipelines.stages.policy_optimization.drawing import Drawing
from pipelines.stages.policy_optimization.methods.base import Method
from pipelines.training.loop import Trainer
from pipelines.training.state_files import Snapshot


@dataclasses.dataclass
class Course:
    """How far the steps came, and what the final figures need of them.

    Attributes:
        step: done so far. rollouts: drawn, redraws included.
        evaluations: figures of each. measured: the step of the last one.
        sampler: of each step the `SAMPLER_FIGURES` that it has. largest_deviation: of a step's tokens' ratios from 1.
        stopped: why it ends before the last step, or None.
    """

    step: int = 0
    rollouts: int = 0
    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    sampler: list[dict[str, float]] = dataclasses.field(default_factory=list)
    largest_deviation: float = 0.0
    stopped: str | None = None
    measured: int = 0


@dataclasses.dataclass
class Players:
    """The parts of the loop: who samples, who scores, what is learned, who learns.

    Attributes:
        kl_weight: of the next step. rollout_copy: what `drawing` samples from, or None where that is the policy itself.
    """

    drawing: Drawing
    policy_scorer: Scorer
    reference: ReferencePolicy
    reference_scorer: ResponseScorer
    method: Method
    trainer: Trainer
    kl_weight: float
    rollout_copy: RolloutCopy | None = None

    @property
    def trainers(self) -> dict[str, Trainer]:
        """Who learns, by name."""
        return {"policy": self.trainer, **self.method.trainers()}

    def snapshot(self, course: Course) -> Snapshot:
        """All that the next step goes on from."""
        found = {name: trainer.snapshot() for name, trainer in self.trainers.items()}
        arrays = {path: array for name, one in found.items() for path, array in one.under(name).items()}
        scorer = self.policy_scorer
        return Snapshot(
            arrays,
            {
                **{name: one.record for name, one in found.items()},
                "course": dataclasses.asdict(course),
                "kl_weight": self.kl_weight,
                "method": self.method.memory(),
                "behaviour": [scorer.seen, scorer.sampler_agrees] if isinstance(scorer, BehaviourScorer) else None,
            },
        )

    def restore(self, saved: Snapshot) -> None:
        """Take back what `snapshot` gave."""
        for name, trainer in self.trainers.items():
            trainer.restore(saved.part(name))
        self.kl_weight = saved.record["kl_weight"]
        self.method.remember(saved.record["method"])
        if isinstance(self.policy_scorer, BehaviourScorer):
            self.policy_scorer.seen, self.policy_scorer.sampler_agrees = saved.record["behaviour"]
