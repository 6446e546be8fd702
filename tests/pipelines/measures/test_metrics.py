"""Schedules and figures of a training run against values by hand."""

import math

import numpy as np
import pytest

from gemma_keras.random import generator
from pipelines.measures.calibration import calibration_error, calibration_figures
from pipelines.measures.intervals import score_interval
from pipelines.measures.metrics import accuracy_by_margin, curve_flatness, preference_metrics
from pipelines.training.optimizers import learning_rate_schedule

pytestmark = pytest.mark.no_backend


def test_cosine_rises_then_falls_to_near_zero():
    rate = learning_rate_schedule("cosine", 2.0, 10, 0.2)
    assert [rate(0), rate(1), rate(2)] == [1.0, 2.0, 2.0]
    assert rate(6) == pytest.approx(2 * 0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert 0 < rate(9) < 0.1 and rate(50) == rate(9)


def test_linear_and_constant():
    linear = learning_rate_schedule("linear", 1.0, 4)
    assert [linear(i) for i in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert {learning_rate_schedule("constant", 0.3, 4)(i) for i in range(5)} == {0.3}


def test_a_wrong_schedule_says_what_is_known():
    with pytest.raises(ValueError, match="cosine.*Received: schedule='step'"):
        learning_rate_schedule("step", 1.0, 4)
    with pytest.raises(ValueError, match="total_updates=0"):
        learning_rate_schedule("cosine", 1.0, 0)


def test_flatness_looks_at_the_last_fifth_of_the_steps():
    curve = [(0, 9.0), (10, 4.0), (20, 2.0), (80, 1.02), (90, 1.01), (100, 1.0)]
    assert curve_flatness(curve) == pytest.approx(0.02)
    assert curve_flatness([(step + 300, loss) for step, loss in curve]) == pytest.approx(0.02)
    assert curve_flatness([(0, 2.0), (50, 1.5), (100, 1.0)]) == pytest.approx(0.5)
    assert curve_flatness([(0, 2.0), (100, 1.0)]) is None


def test_preference_metrics_by_hand():
    sides = [2.0, 0.0, 1.0, 5.0], [1.0, 3.0, 1.0, 1.0]
    figures = preference_metrics(*sides, [4, 2, 3, 8], [2, 5, 3, 2], np.arange(4), generator(0))
    assert figures["accuracy"] == 0.5  # the tie is wrong
    assert figures["margin"] == pytest.approx((1 - 3 + 0 + 4) / 4)
    assert (figures["raw_reward_min"], figures["raw_reward_max"]) == (0.0, 5.0)
    assert figures["raw_reward_mean"] == pytest.approx(14 / 8)
    assert figures["length_correlation"] > 0.5
    assert sum(figures["margin_histogram"]["counts"]) == 4 and len(figures["margin_histogram"]["edges"]) == 21
    for chosen in ([], [1.0, 2.0]):
        with pytest.raises(ValueError, match=f"at least one. Received: {len(chosen)} and {len(chosen) // 2}"):
            preference_metrics(chosen, chosen[1:], [], [], np.arange(len(chosen)), generator(0))


def test_confident_and_right_is_well_calibrated_confident_and_wrong_is_not():
    lengths = np.ones(40, int)
    more = (lengths, lengths, np.arange(40), generator(0))
    right = preference_metrics(np.full(40, 9.0), np.zeros(40), *more)
    wrong = preference_metrics(np.zeros(40), np.full(40, 9.0), *more)
    assert right["calibration_error"] < 0.01 and wrong["calibration_error"] > 0.99
    assert right["length_correlation"] is None


def test_calibration_error_by_hand():
    # bins [0.5, 0.55) and [0.9, 0.95): |1 - 2 * 0.52| + |1 - 0.92| over three pairs.
    assert calibration_error(np.array([0.52, 0.52, 0.92]), np.array([True, False, True])) == pytest.approx(
        (0.04 + 0.08) / 3
    )


def test_certainty_falls_into_the_last_bin():
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, True])) == 0.5
    assert calibration_error(np.array([0.5, 1.0]), np.array([True, True])) == 0.25


def figures_of(confidence, is_right, groups, resamples=4000):
    return calibration_figures(np.array(confidence), np.array(is_right), groups, generator(0), resamples)


def test_what_a_perfect_model_reads_is_that_of_its_own_confidences():
    """Two pairs at 0.8: |right - 1.6| / 2 is 0.2, 0.3 or 0.8 with probability 0.64, 0.32, 0.04. Where they are of one
    prompt and one was as right as the other, they are one draw: 0.2 or 0.8, with 0.8 and 0.2."""
    apart = figures_of([0.8, 0.8], [True, False], np.arange(2))
    together = figures_of([0.8, 0.8], [True, True], np.zeros(2, int))
    assert apart["calibration_error_if_perfect"] == pytest.approx(0.64 * 0.2 + 0.32 * 0.3 + 0.04 * 0.8, abs=0.01)
    # Labels that agree by half as much as one draw would: (0.2 * 0.2) / (0.8 * 0.2) = 1/4 of the draws are one.
    expected = 0.75 * 0.256 + 0.25 * (0.8 * 0.2 + 0.2 * 0.8)
    assert together["calibration_error_if_perfect"] == pytest.approx(expected, abs=0.01)


def test_a_perfect_model_is_far_from_zero_at_60_pairs_and_its_interval_is_not():
    readings, below = [], 0
    for repetition in range(200):
        rng = generator(7, repetition)
        confidence = rng.uniform(0.5, 1, 60)
        found = calibration_figures(confidence, rng.random(60) < confidence, np.arange(60), rng, 200)
        readings.append((found["calibration_error"], found["calibration_error_if_perfect"]))
        below += found["calibration_error_ci95"][0] > 0
    error, expected = np.mean(readings, axis=0)
    assert error == pytest.approx(0.117, abs=0.01) and expected == pytest.approx(error, abs=0.005)
    assert below <= 12  # 2.5 % of 200, and the noise of 200


def test_an_overconfident_model_is_told_from_a_perfect_one():
    rng = generator(8)
    confidence = rng.uniform(0.8, 1, 400)
    is_right = rng.random(400) < confidence - 0.2
    low, high = figures_of(confidence, is_right, np.arange(400), 400)["calibration_error_ci95"]
    assert 0.05 < low < 0.2 < high < 0.27
    # The same pairs twice tell no more.
    twice = figures_of(np.repeat(confidence, 2), np.repeat(is_right, 2), np.repeat(np.arange(400), 2), 400)
    assert twice["calibration_error_ci95"][1] == pytest.approx(high, abs=1e-6)
    assert twice["calibration_error_ci95"][0] == pytest.approx(low, abs=0.03)


def test_accuracy_by_margin_by_hand():
    rows = accuracy_by_margin(np.array([0.1, 3.0, -0.2, 4.0]), np.array([0, 1, 2, 1]), buckets=2)
    assert [row.pop("accuracy_ci95") for row in rows] == [
        list(score_interval([1, 0])),
        list(score_interval([1])),  # both of one prompt
    ]
    assert rows == [
        {"margin_from": 0.1, "margin_to": 0.2, "accuracy": 0.5, "pairs": 2},
        {"margin_from": 3.0, "margin_to": 4.0, "accuracy": 1.0, "pairs": 2},
    ]


def test_pairs_of_one_prompt_widen_the_interval_of_the_accuracy():
    chosen, lengths = np.tile([1.0, 1.0, 1.0, 1.0, -1.0], 20), np.ones(100, int)
    apart, together = (
        preference_metrics(chosen, np.zeros(100), lengths, lengths, groups, generator(0))["accuracy_ci95"]
        for groups in (np.arange(100), np.tile(np.arange(5), 20))
    )
    assert apart == list(score_interval(chosen > 0))
    assert together == list(score_interval([1, 1, 1, 1, 0]))
