"""A policy in training on fixed prompts: the same draws each time, ragged responses, intervals of the evaluation."""

import json

import numpy as np
import pytest
from policy_fixture import prompts_of, rollout_of

from pipelines.measures.intervals import mean_interval, score_interval
from pipelines.scoring.raters import Rater, Scores
from pipelines.stages.policy_optimization.monitor import PolicyEvaluation

pytestmark = pytest.mark.no_backend

RESPONSES = [[5, 6, 1], [7], [8, 9, 10, 11, 1], [1]]
TOKEN_KL = np.array([[0.1, 0.2, 0.3, 0, 0], [0.4, 0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1, 0.6], [0.0, 0, 0, 0, 0]])


class DrawsByStep:
    """A policy whose responses depend on what they are drawn for."""

    seed, stage = 0, "policy"

    def sample(self, prompts, rows, samples_per_prompt=1, step=0, progress=None):
        finished = [True, step == "evaluation", True, False]
        texts = [f"{step} {row}" for row in rows]
        return rollout_of([prompts.token_ids[i] for i in rows], RESPONSES, finished, texts, rows)


class ByHand(Rater):
    """Scores by hand."""

    name = source = "by hand"

    def __init__(self, total, bounds, parts=None):
        self.total, self.bounds, self.parts = np.array(total), bounds, parts or {}

    def score(self, prompts, rollout):
        return Scores(self.total, self.parts)


def evaluation(tmp_path, gold=None):
    return PolicyEvaluation(
        DrawsByStep(),
        prompts_of([[2, 5], [2], [2, 6], [2, 7], [2, 8]]),
        np.array([0, 2, 3, 4]),
        ByHand([1.0, 3.0, 2.0, -1.0], None),
        gold,
        lambda rollout: TOKEN_KL,
        tmp_path / "samples.jsonl",
    )


def test_kl_is_a_mean_over_tokens_and_over_responses_of_their_sums(tmp_path):
    found = evaluation(tmp_path).measure(0)
    assert found["eval_kl"] == pytest.approx(2.0 / 10) and found["eval_kl_sequence"] == pytest.approx(2.0 / 4)


def test_every_evaluation_draws_the_same(tmp_path):
    one = evaluation(tmp_path)
    assert one.measure(0) == one.measure(5)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0] * 4 + [5] * 4
    assert [sample["completion"] for sample in samples[:4]] == [sample["completion"] for sample in samples[4:]]


def test_intervals_are_those_of_an_evaluation(tmp_path):
    gold = ByHand([1.0, 1.0, 0.5, 1.0], (0.0, 1.0), {"right": np.ones(4)})
    found = evaluation(tmp_path, gold).measure(0)
    assert (found["eval_reward_ci95_low"], found["eval_reward_ci95_high"]) == mean_interval([1.0, 3.0, 2.0, -1.0])
    assert (found["eval_gold_ci95_low"], found["eval_gold_ci95_high"]) == score_interval([1.0, 1.0, 0.5, 1.0])
    assert found["eval_gold"] == 0.875 and found["eval_gold/right"] == 1
