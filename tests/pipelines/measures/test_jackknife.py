"""Intervals of figures that are no mean: against Student's for a mean, and how often they cover a ratio."""

import math

import numpy as np
import pytest

from pipelines.measures.jackknife import GROUPS, jackknife_interval

pytestmark = pytest.mark.no_backend


def ratio(rows):
    return sum(one for one, _ in rows) / sum(other for _, other in rows)


def test_without_each_row_in_turn_a_mean_has_students_interval():
    """With a row a group the jackknife of a mean is exact: its standard error is s / √n."""
    values = [1.0, 4.0, 2.0, 8.0, 5.0]
    low, high = jackknife_interval(np.mean, values)
    reach = 2.776 * np.std(values, ddof=1) / math.sqrt(5)  # t of 4 degrees of freedom
    assert (low, high) == pytest.approx((4 - reach, 4 + reach), rel=0.01)


def test_it_covers_a_ratio_of_sums_as_often_as_it_says():
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        size = random.poisson(3, 200) + 1
        rows = list(zip(random.binomial(size, 0.3).tolist(), size.tolist(), strict=True))
        low, high = jackknife_interval(ratio, rows)
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_rows_in_turn_are_no_groups():
    """Pairs of opposites in turn: groups that were every 20th row would hold but one kind."""
    rows = [(1, 1.0), (0, 0.0)] * 200
    gap = lambda part: np.mean([v for k, v in part if k]) - np.mean([v for k, v in part if not k])  # noqa: E731
    assert jackknife_interval(gap, rows) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("rows", [[1.0, 2.0], [1.0, math.nan, 2.0, 3.0]])
def test_none_where_nothing_says_how_far_it_spreads(rows):
    assert jackknife_interval(np.mean, rows) is None


def test_few_groups_for_any_number_of_rows():
    calls = []

    def rule(rows):
        calls.append(len(rows))
        return float(np.mean(rows))

    jackknife_interval(rule, list(range(1000)))
    assert calls == [1000, *[950] * GROUPS]
