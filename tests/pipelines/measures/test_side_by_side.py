"""What verdicts in both orders say, by hand, and of scripted judges whose truth is known."""

import numpy as np
import pytest

from pipelines.measures.intervals import score_interval
from pipelines.measures.side_by_side import length_figures, outcomes_of, position_figures, side_by_side_figures
from pipelines.scoring.pairwise.base import Verdicts
from pipelines.scoring.pairwise.both_orders import PairToJudge, is_turned, judge_pairs
from pipelines.scoring.pairwise.questions import read_answers

pytestmark = pytest.mark.no_backend
NAN = float("nan")


class Scripted:
    """A judge whose choice is a function of both answers."""

    source = "scripted"

    def __init__(self, choose):
        self.choose, self.asked = choose, []

    def decide(self, asked, keep=None, advance=None):
        self.asked += asked
        choice = np.array([self.choose(one.first, one.second) for one in asked], np.int8)
        return Verdicts(choice, np.zeros(len(asked), np.int8), np.full(len(asked), NAN), [""] * len(asked))


def pairs_of(answers):
    return [PairToJudge(f"p{i}", pair, f"rows.jsonl:{i + 1}", f"id{i}", "") for i, pair in enumerate(answers)]


def texts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [("a" * rng.integers(1, 90), "b" * rng.integers(1, 60)) for _ in range(n)]


def figures(judge, answers, order="both"):
    judged = judge_pairs(pairs_of(answers), judge, order, 0, "s")
    lengths, others = ([len(pair[side]) for pair in answers] for side in (0, 1))
    return side_by_side_figures(judged.as_first, judged.as_second, lengths, others, np.arange(len(answers)))


def test_only_verdicts_that_agree_in_both_orders_decide():
    as_first = [1, -1, 1, -1, 1, 0, 0, 1, NAN, NAN]
    as_second = [-1, 1, 1, -1, 0, -1, 0, NAN, 1, NAN]
    assert outcomes_of(as_first, as_second).tolist() == [1, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 0, 0.5]


def test_always_the_first_is_half_with_a_bias_of_one():
    found = figures(Scripted(lambda first, second: 1), texts(80))
    assert (found["win_rate"], found["tie_rate"]) == (0.5, 1.0)
    assert (found["position_bias"], found["contradictions"], found["longer_wins"]) == (1.0, 1.0, None)
    found = figures(Scripted(lambda first, second: -1), texts(80))
    assert (found["win_rate"], found["position_bias"]) == (0.5, -1.0)
    shuffled = figures(Scripted(lambda first, second: 1), texts(400), "shuffled")
    assert shuffled["position_bias"] == 1 and shuffled["contradictions"] is None
    assert shuffled["win_rate"] == pytest.approx(0.5, abs=0.06)


def test_the_longer_wins_is_told_from_a_better_policy():
    answers = texts(400)
    found = figures(Scripted(lambda first, second: int(np.sign(len(first) - len(second)))), answers)
    assert found["win_rate"] > 0.6 and found["longer_wins"] == 1 and found["position_bias"] == 0
    assert found["length_controlled"] == pytest.approx(0.5, abs=0.03)
    assert found["length_controlled_ci95"][0] < 0.5 < found["length_controlled_ci95"][1]
    assert found["length_correlation"] > 0.8


def test_a_fair_judge_of_the_better_policy():
    found = figures(Scripted(lambda first, second: 1 if "a" in first else -1), texts(50))
    assert (found["win_rate"], found["wins"], found["position_bias"], found["contradictions"]) == (1, 1, 0, 0)
    assert found["win_rate_ci95"] == pytest.approx(score_interval(np.ones(50)))


def test_garbage_is_a_tie_and_is_counted():
    class Garbage:
        source = "garbage"

        def decide(self, asked, keep=None, advance=None):
            return read_answers(["I like both!", "", "Verdict: C", None] * (len(asked) // 4))

    judged = judge_pairs(pairs_of(texts(20)), Garbage(), "both", 0, "s")
    assert (judged.outcomes == 0.5).all()
    assert (judged.asked, judged.unreadable, judged.too_long, judged.unread) == (40, 30, 10, 40)


def test_answers_that_read_the_same_are_ties_that_nobody_is_asked_about():
    judge = Scripted(lambda first, second: 1)
    judged = judge_pairs(pairs_of([("x", "x"), ("x", "y")]), judge, "both", 0, "s")
    assert judged.outcomes.tolist() == [0.5, 0.5] and len(judge.asked) == 2
    assert [(one.first, one.second) for one in judge.asked] == [("x", "y"), ("y", "x")]
    assert np.isnan(judged.as_first[0]) and judged.as_first[1] == 1


def test_a_drawn_order_is_that_of_the_draw():
    judge = Scripted(lambda first, second: 1 if "a" in first else -1)
    answers = texts(40)
    judged = judge_pairs(pairs_of(answers), judge, "shuffled", 7, "s")
    turned = [is_turned(7, "s", f"id{i}") for i in range(40)]
    assert [one.first[0] for one in judge.asked] == ["b" if one else "a" for one in turned] and 8 < sum(turned) < 32
    assert (judged.outcomes == 1).all()


def test_odds_are_the_mean_over_both_orders():
    class Odds:
        source = "odds"

        def decide(self, asked, keep=None, advance=None):
            odds = np.array([2.0 if "a" in one.first else 1.0 for one in asked])
            return Verdicts(np.sign(odds).astype(np.int8), np.zeros(len(asked), np.int8), odds, [""] * len(asked))

    judged = judge_pairs(pairs_of([("a", "b")]), Odds(), "both", 0, "s")
    assert judged.log_odds.tolist() == [(2.0 - 1.0) / 2] and judged.outcomes.tolist() == [0.5]


def test_position_by_hand():
    found = position_figures([1, 1, -1, 0], [1, -1, NAN, 0], np.arange(4))
    assert found["position_bias"] == pytest.approx((1 + 1 - 1 + 1 - 1) / 5)
    assert found["contradictions"] == pytest.approx(1 / 3)
    assert position_figures([0.0], [0.0], [0]) == {
        "position_bias": None, "position_bias_ci95": None, "contradictions": 0.0,
    }  # fmt: skip


def test_length_by_hand():
    found = length_figures(np.array([1, 0, 1, 0.5, 1]), np.array([5.0, 3, -2, 9, 0]), np.arange(5))
    assert found["longer_wins"] == pytest.approx(1 / 3)
    assert found["longer_wins_ci95"] == pytest.approx(score_interval([1.0, 0, 0]))
    of_one = length_figures(np.array([1.0]), np.array([0.0]), np.arange(1))
    assert of_one["longer_wins"] is None and of_one["length_correlation"] is None
    assert length_figures(np.array([1.0, 0]), np.array([4.0, -4]), np.arange(2))["length_correlation"] == pytest.approx(
        1
    )
