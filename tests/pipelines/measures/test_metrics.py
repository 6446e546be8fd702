"""Schedules and figures of a training run against values by hand."""

import math

import numpy as np
import pytest

from pipelines.measures.metrics import accuracy_by_margin, calibration_error, curve_flatness, preference_metrics
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
    assert curve_flatness([(0, 2.0), (50, 1.5), (100, 1.0)]) == pytest.approx(0.5)
    assert curve_flatness([(0, 2.0), (100, 1.0)]) is None


def test_preference_metrics_by_hand():
    figures = preference_metrics([2.0, 0.0, 1.0, 5.0], [1.0, 3.0, 1.0, 1.0], [4, 2, 3, 8], [2, 5, 3, 2])
    assert figures["accuracy"] == 0.5  # the tie is wrong
    assert figures["margin"] == pytest.approx((1 - 3 + 0 + 4) / 4)
    assert (figures["raw_reward_min"], figures["raw_reward_max"]) == (0.0, 5.0)
    assert figures["raw_reward_mean"] == pytest.approx(14 / 8)
    assert figures["length_correlation"] > 0.5
    assert sum(figures["margin_histogram"]["counts"]) == 4 and len(figures["margin_histogram"]["edges"]) == 21


def test_confident_and_right_is_well_calibrated_confident_and_wrong_is_not():
    lengths = np.ones(40, int)
    right = preference_metrics(np.full(40, 9.0), np.zeros(40), lengths, lengths)
    wrong = preference_metrics(np.zeros(40), np.full(40, 9.0), lengths, lengths)
    assert right["calibration_error"] < 0.01 and wrong["calibration_error"] > 0.99
    assert right["length_correlation"] is None


def test_calibration_error_by_hand():
    # bins [0.5, 0.55) and [0.9, 0.95): |1 - 2 * 0.52| + |1 - 0.92| over three pairs.
    assert calibration_error(np.array([0.52, 0.52, 0.92]), np.array([True, False, True])) == pytest.approx(
        (0.04 + 0.08) / 3
    )


def test_accuracy_by_margin_by_hand():
    assert accuracy_by_margin(np.array([0.1, 3.0, -0.2, 4.0]), buckets=2) == [
        {"margin_from": 0.1, "margin_to": 0.2, "accuracy": 0.5, "pairs": 2},
        {"margin_from": 3.0, "margin_to": 4.0, "accuracy": 1.0, "pairs": 2},
    ]
