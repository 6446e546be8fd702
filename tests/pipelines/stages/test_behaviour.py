"""When the sampler's log-probabilities serve as the old ones, and when a second pass is made."""

import dataclasses

import numpy as np
import pytest
from policy_fixture import rollout_of

from pipelines.stages.policy_optimization.behaviour import BehaviourScorer

ROLLOUT = dataclasses.replace(
    rollout_of([[2], [2]], [[5, 6], [7]], [False, True], ["", ""], log_probs=[[-1.0, -2.0], [-3.0, 0.0]]),
    entropy=np.float32([[0.5, 0.25], [0.75, 0.0]]),
)


class Scorer:
    """Answers with the sampler's log-probabilities, off by what is given for each sampled token; counts its calls."""

    def __init__(self, *differences):
        self.differences, self.calls = iter(differences), 0

    def __call__(self, rollout):
        self.calls += 1
        # What lies where nothing was sampled is never looked at.
        return rollout.log_probs + np.float32([[1, 1], [1, 1e6]]) * next(self.differences), np.ones((2, 2))


def test_the_first_rollout_and_each_that_is_due_are_scored_and_the_others_are_not():
    scorer = Scorer(*[0.0] * 3)
    behaviour = BehaviourScorer(scorer, compare_every=3)
    made = []
    for _ in range(7):
        log_probs, entropy = behaviour(ROLLOUT)
        made.append(log_probs is not ROLLOUT.log_probs)
        assert entropy is ROLLOUT.entropy or made[-1]
    assert made == [True, False, False, True, False, False, True] and scorer.calls == 3


def test_zero_compares_the_first_alone():
    scorer = Scorer(0.0)
    behaviour = BehaviourScorer(scorer, compare_every=0)
    for _ in range(5):
        behaviour(ROLLOUT)
    assert scorer.calls == 1


@pytest.mark.parametrize("difference, agrees", [(9e-6, True), (-9e-6, True), (1.2e-5, False), (-1.2e-5, False)])
def test_the_bound_is_on_the_ratio_of_a_token(difference, agrees):
    behaviour = BehaviourScorer(Scorer(difference, 0.0), compare_every=0)
    behaviour(ROLLOUT)
    assert (behaviour(ROLLOUT)[0] is ROLLOUT.log_probs) == agrees


def test_a_rounding_that_grows_brings_the_second_pass_back():
    behaviour = BehaviourScorer(Scorer(0.0, 1e-3, 1e-3, 0.0), compare_every=2)
    made = [behaviour(ROLLOUT)[0] is not ROLLOUT.log_probs for _ in range(6)]
    assert made == [True, False, True, True, True, False]
