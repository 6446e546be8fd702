"""Intervals and agreement measures against values by hand, tables, enumeration and simulation."""

import math

import numpy as np
import pytest

from gemma_keras.random import generator
from pipelines.algorithms.preference import accuracy_ceiling, preference_probability, regrets
from pipelines.measures import statistics
from pipelines.measures.intervals import groups_of, mean_interval, score_interval, unskewed_t_interval

pytestmark = pytest.mark.no_backend

Z = 1.959963984540054


def test_of_zeros_and_ones_the_score_interval_is_wilson_s():
    """Each bound p is where |share - p| = z sqrt(p (1 - p) / n)."""
    for successes, trials in ((0, 10), (5, 10), (10, 10), (81, 263)):
        share = successes / trials
        for bound in score_interval(np.arange(trials) < successes):
            assert abs(abs(share - bound) - Z * np.sqrt(bound * (1 - bound) / trials)) < 1e-8
    # Newcombe 1998, table I: 81 of 263 has 0.2553 to 0.3662.
    assert np.allclose(score_interval(np.arange(263) < 81), (0.2553, 0.3662), atol=5e-5)
    assert score_interval(np.ones(20)) == (pytest.approx(20 / (20 + Z**2)), 1.0)
    assert score_interval([0.5] * 20) == (pytest.approx(0.4194, abs=1e-4), pytest.approx(0.5806, abs=1e-4))


def test_of_wins_ties_and_losses_it_is_tango_s():
    """Tango 1998: the score interval of the difference of two paired shares, here win rate = (1 + difference) / 2."""
    for wins, losses, n in ((9, 4, 20), (12, 0, 20), (3, 30, 60)):
        outcomes = [1.0] * wins + [0.0] * losses + [0.5] * (n - wins - losses)
        for bound in score_interval(outcomes):
            delta = 2 * bound - 1
            b = -wins - losses + (2 * n - wins + losses) * delta
            q = (math.sqrt(b * b + 8 * n * losses * delta * (1 - delta)) - b) / (4 * n)
            score = (wins - losses - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))
            assert abs(score) == pytest.approx(Z, abs=1e-6)


def test_of_other_values_it_is_the_score_of_the_likeliest_distribution():
    """The likelihood of 12, 5 and 3 values, and of nothing seen on the bound 0, maximized on a grid."""
    seen, counts, n = np.array([1.0, 0.6, 0.2]), np.array([12, 5, 3]), 20
    low, _ = score_interval(np.repeat(seen, counts))
    best, variance = -np.inf, None
    for at_bound in np.linspace(0, 0.3, 301):
        for lowest in np.linspace(0.001, 0.6, 600):
            # Of two unknown probabilities the mean and the sum leave one solution.
            rest, middle_sum = 1 - at_bound - lowest, low - 0.2 * lowest
            top = (middle_sum - 0.6 * rest) / 0.4
            middle = rest - top
            if top <= 0 or middle <= 0:
                continue
            likelihood = counts @ np.log([top, middle, lowest])
            if likelihood > best:
                best = likelihood
                variance = np.array([top, middle, lowest, at_bound]) @ (np.array([1, 0.6, 0.2, 0]) - low) ** 2
    mean = float(counts @ seen) / n
    assert (mean - low) / math.sqrt(variance / n) == pytest.approx(Z, rel=2e-3)


@pytest.mark.parametrize("trials", [20, 64])
def test_of_zeros_and_ones_it_covers_at_every_rate(trials):
    """By enumeration. Wilson's own falls to 84 % where one success in all is to be expected in five trials of such a
    size."""
    intervals = np.array([score_interval(np.arange(trials) < successes) for successes in range(trials + 1)])
    counts = np.arange(trials + 1)
    ways = np.array([math.comb(trials, count) for count in counts], np.float64)
    for rate in np.linspace(0.5, 0.999, 500):
        is_covered = (intervals[:, 0] <= rate) & (rate <= intervals[:, 1])
        assert (ways * rate**counts * (1 - rate) ** (trials - counts))[is_covered].sum() >= 0.92, rate


def test_values_of_one_prompt_tell_as_much_as_they_differ():
    answers = generator(3, "answers").random(40) < 0.8
    assert score_interval(answers, groups=np.arange(40)) == score_interval(answers)
    # Copies tell nothing, and neither do prompts that are all right: of 20 there are 20, not 160.
    copies, prompts = np.repeat(answers, 4), np.repeat(np.arange(40), 4)
    assert score_interval(copies, groups=prompts) == pytest.approx(score_interval(answers), abs=1e-9)
    assert score_interval(np.ones(160), groups=np.repeat(np.arange(20), 8)) == score_interval(np.ones(20))
    assert mean_interval(copies * 1.5, prompts) == pytest.approx(mean_interval(answers * 1.5), abs=1e-9)
    # Prompts of different size, all right: 90 values tell as much as 90² / (80² + 10 * 1²).
    uneven = groups_of(["one prompt"] * 80 + [f"prompt {number}" for number in range(10)])
    assert uneven.tolist() == [0] * 80 + list(range(1, 11))
    low, high = score_interval(np.ones(90), groups=uneven)
    assert low == pytest.approx(1 / (1 + Z**2 * (80**2 + 10) / 90**2)) and high == 1


def test_without_bounds_a_symmetric_sample_has_student_s_interval():
    values = np.concatenate([np.linspace(-3, 3, 20)])
    half = 2.0930 * values.std(ddof=1) / math.sqrt(20)  # t of 19 degrees of freedom
    assert unskewed_t_interval(values + 7) == pytest.approx((7 - half, 7 + half), abs=1e-4)
    low, high = unskewed_t_interval([0.0] * 19 + [1.0])  # a tail to the right: there the mean may lie far out
    assert 0.05 - low < high - 0.05
    # Of values that are all alike nothing is known of how far others would lie, and no interval is better than none.
    assert mean_interval([1.5]) is None and mean_interval([1.5, 1.5]) is None
    assert mean_interval([0.0, 1e-7, 0.0, -1e-7]) is None


def test_without_bounds_each_end_solves_hall_s_equation():
    """Hall 1992: w + γ w² / 3 + γ² w³ / 27 + γ / (6 n) is symmetric about 0, w the standardized error of the mean."""
    values = generator(4, "skewed").exponential(size=20)
    spread = values.std(ddof=1)
    skewness = np.mean(((values - values.mean()) / values.std()) ** 3)
    for end, sign in zip(unskewed_t_interval(values), (1, -1), strict=True):
        w = (values.mean() - end) / spread
        cubic = w + skewness * w**2 / 3 + skewness**2 * w**3 / 27 + skewness / (6 * 20)
        assert cubic == pytest.approx(sign * 2.0930 / math.sqrt(20), abs=1e-5)


def test_what_is_no_sample_is_refused():
    with pytest.raises(ValueError, match="at least one value.*Received: shape \\(0,\\)"):
        mean_interval([])
    with pytest.raises(ValueError, match="Expected values in \\[0, 1\\]. Received: 0.5 to 1.5"):
        score_interval([0.5, 1.5])


def percentile_bootstrap(values, groups, rng):
    """The interval that the next tests would not let pass."""
    means = values[rng.integers(0, len(values), (400, len(values)))].mean(axis=1)
    return np.quantile(means, [0.025, 0.975])


def wilson_over_pairs(values, groups, rng):
    """Another one: every pair counted as if it had a prompt of its own."""
    return score_interval(values)


def answers(rng, rate, prompts, samples):
    """Right or wrong answers that correlate by 0.3 within a prompt."""
    chance = np.repeat(rng.beta(rate / 0.3 * 0.7, (1 - rate) / 0.3 * 0.7, prompts), samples)
    return (rng.random(chance.size) < chance).astype(float), np.repeat(np.arange(prompts), samples)


def wins(rng, rate, prompts, samples):
    """A tenth of the rest are ties."""
    uniform = rng.random(prompts)
    return np.where(
        uniform < rate - 0.05 * (1 - rate), 1.0, np.where(uniform < rate + 0.05 * (1 - rate), 0.5, 0.0)
    ), None


def coverage(draw, interval, rate, prompts, samples, repetitions=400):
    hits = 0
    for repetition in range(repetitions):
        rng = generator(1, "coverage", f"{rate}", prompts, samples, repetition)
        values, groups = draw(rng, rate, prompts, samples)
        low, high = interval(values, groups, rng)
        hits += low <= rate <= high
    return hits / repetitions


def score(values, groups, rng):
    return score_interval(values, groups=groups)


@pytest.mark.parametrize(
    ("draw", "rate", "prompts", "samples", "faulty"),
    [
        (wins, 0.99, 64, 1, percentile_bootstrap),
        (wins, 0.9, 20, 1, percentile_bootstrap),
        (answers, 0.5, 64, 8, wilson_over_pairs),
        (answers, 0.9, 64, 4, wilson_over_pairs),
        (answers, 0.9, 600, 8, wilson_over_pairs),
    ],
)
def test_intervals_cover_and_those_that_do_not_are_found(draw, rate, prompts, samples, faulty):
    """docs/intervals.md has the whole table; 92 % within the noise of 400 repetitions."""
    assert 0.915 <= coverage(draw, score, rate, prompts, samples) <= 0.99
    assert coverage(draw, faulty, rate, prompts, samples) < 0.9


def test_the_mean_of_skewed_rewards_is_covered_at_20_prompts():
    def covered(interval):
        hits = 0
        for repetition in range(1000):
            low, high = interval(generator(2, "skewed", repetition).exponential(size=20))
            hits += low <= 1 <= high
        return hits / 1000

    assert covered(mean_interval) >= 0.925
    assert covered(lambda values: percentile_bootstrap(values, None, generator(3, "bootstrap"))) < 0.915


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
    assert preference_probability([2.0, 0.0, 1.0], [1.0, 0.0, 2.5], scale=0.5) == pytest.approx(
        [1 / (1 + np.exp(-2)), 0.5, 1 / (1 + np.exp(3))], abs=1e-15
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


def test_regret_by_hand():
    """The likelier side is preferred, the other one, none of both; and what is left is the ceiling less the regret."""
    p = np.array([0.9, 0.9, 0.2, 0.5, 0.7])
    assert regrets(p, [1.0, -2.0, 0.5, 3.0, 0.0]) == pytest.approx([0, 0.8, 0.6, 0, 0.2])
    expected_accuracy = np.mean([0.9, 0.1, 0.2, 0.5, 0.5])
    assert accuracy_ceiling(p) - regrets(p, [1.0, -2.0, 0.5, 3.0, 0.0]).mean() == pytest.approx(expected_accuracy)
