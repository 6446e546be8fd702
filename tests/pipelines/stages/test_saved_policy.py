"""What a policy's saved state holds beside its trainers, taken back in another process."""

from types import SimpleNamespace

import numpy as np

from pipelines.stages.policy_optimization.behaviour import BehaviourScorer
from pipelines.stages.policy_optimization.methods.registry import METHODS
from pipelines.stages.policy_optimization.players import Course, Players
from pipelines.training.state_files import Snapshot


class Keeper:
    """A trainer of one number."""

    def __init__(self, number):
        self.number = number

    def snapshot(self):
        return Snapshot({"weights/w": np.float32([self.number])}, {"step": int(self.number)})

    def restore(self, saved):
        self.number = float(saved.arrays["weights/w"][0])
        assert saved.record == {"step": int(self.number)}


def players(number, baseline, values, scorer):
    method = METHODS["reinforce"]()
    method.baseline = baseline
    method.trainers = lambda: {"values": Keeper(values)}
    return Players(
        SimpleNamespace(), scorer, SimpleNamespace(), SimpleNamespace(), method, Keeper(number), kl_weight=number / 8
    ), method


def test_all_that_the_next_step_needs_comes_back():
    scorer, other = BehaviourScorer(None, 2), BehaviourScorer(None, 2)
    scorer.seen, scorer.sampler_agrees = 5, True
    first, _ = players(3.0, 0.75, 4.0, scorer)
    course = Course(7, 9, [{"eval_reward": 0.5}], [{}], 0.25, None)
    saved = first.snapshot(course)
    second, method = players(0.0, 0.0, 0.0, other)
    values = Keeper(0.0)
    method.trainers = lambda: {"values": values}
    second.restore(saved)
    assert (second.trainer.number, values.number, method.baseline, second.kl_weight) == (3.0, 4.0, 0.75, 0.375)
    assert (other.seen, other.sampler_agrees) == (5, True)
    assert Course(**saved.record["course"]) == course
