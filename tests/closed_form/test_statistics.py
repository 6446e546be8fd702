"""Intervals and agreement measures against values by hand, tables and simulation."""

import numpy as np
import pytest

from gemma_keras.random import generator
from pipelines.algorithms.preference import accuracy_ceiling, preference_probability
from pipelines.measures import statistics

pytestmark = pytest.mark.no_backend


def test_wilson_interval_solves_its_equation():
    """Each bound p is where |share - p| = z sqrt(p (1 - p) / n)."""
    for successes, trials in ((0, 10), (3, 10), (10, 10), (81, 263)):
        low, high = statistics.wilson_interval(successes, trials)
        share, z = successes / trials, 1.959963984540054
        for bound in (low, high):
            assert abs(abs(share - bound) - z * np.sqrt(bound * (1 - bound) / trials)) < 1e-8
        assert low <= share <= high
    assert statistics.wilson_interval(0, 0) == (0.0, 1.0)
    # Newcombe 1998, table I: 81 of 263 has 0.2553 to 0.3662.
    assert np.allclose(statistics.wilson_interval(81, 263), (0.2553, 0.3662), atol=5e-5)


def test_bootstrap_interval_is_as_wide_as_the_standard_error_says():
    values = generator(0, "values").normal(2.0, 3.0, 400)
    low, high = statistics.bootstrap_interval(values, generator(0, "bootstrap"), resamples=4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert (low, high) == statistics.bootstrap_interval(values, generator(0, "bootstrap"), resamples=4000)
    assert statistics.bootstrap_interval([0.5], generator(0)) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one value.*Received: shape \\(0,\\)"):
        statistics.bootstrap_interval([], generator(0))


def test_outcome_rates_count_a_tie_as_half_a_win():
    rates = statistics.outcome_rates([1, 1, 0.5, 0, 0.5, 1, 1, 0])
    assert rates == {"win_rate": 0.625, "wins": 0.5, "tie_rate": 0.25, "loss_rate": 0.25}
    with pytest.raises(ValueError, match="1 \\(win\\), 0.5 \\(tie\\) or 0 \\(loss\\)"):
        statistics.outcome_rates([0.7])


def test_spearman_by_hand():
    assert statistics.spearman([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert statistics.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert statistics.spearman([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(statistics.spearman([1, 1], [1, 2]))


def test_preference_probability_is_bradley_terry():
    assert preference_probability([2.0, 0.0], [1.0, 0.0], scale=0.5) == pytest.approx(
        [1 / (1 + np.exp(-2)), 0.5], abs=1e-15
    )
    assert preference_probability([1.0, 2.0, 3.0], [2.0, 2.0, 0.0], scale=0).tolist() == [0, 0.5, 1]
    with np.errstate(over="raise", invalid="raise"):
        assert preference_probability([1e5, -1e3], [-1e5, 0], scale=1).tolist() == pytest.approx([1, 0])
    with pytest.raises(ValueError, match="must be >= 0"):
        preference_probability([1.0], [0.0], scale=-1)


def test_accuracy_ceiling_is_what_the_true_scores_reach():
    """Row I: judging by the true scores reaches the ceiling on simulated labels, any other rule less."""
    rng = generator(2, "raters")
    first, second = rng.normal(size=(2, 100_000))
    p = preference_probability(first, second)
    label = rng.random(100_000) < p
    assert np.mean((first > second) == label) == pytest.approx(accuracy_ceiling(p), abs=0.005)
    assert np.mean((first > second + 0.5) == label) < accuracy_ceiling(p) - 0.005
