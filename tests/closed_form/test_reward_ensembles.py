"""Rewards of several models as one, by hand and by the standard library."""

import statistics

import numpy as np
import pytest

from pipelines.algorithms.reward_ensembles import combined, disagreement

SCORES = [[1.0, -2.0, 0.5, 0.0], [3.0, -2.0, 0.5, -1.0], [2.0, 4.0, 0.5, 4.0]]
"""Of three members on four responses."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("mean",), [2, 0, 0.5, 1]),
        (("minimum",), [1, -2, 0.5, -1]),
        (("uncertainty", 0.5), [2 - 1 / 3, 0 - 4, 0.5, 1 - 7 / 3]),
        (("uncertainty", 0.0), [2, 0, 0.5, 1]),
        # A weight of the uncertainty means nothing to the others.
        (("mean", 0.5), [2, 0, 0.5, 1]),
    ],
)
def test_combinations_by_hand(options, expected):
    np.testing.assert_allclose(combined(SCORES, *options), expected, rtol=1e-12)


def test_the_uncertainty_is_the_variance_over_the_members_as_a_population():
    scores = np.random.default_rng(3).normal(size=(4, 6))
    columns = [column.tolist() for column in scores.T]
    expected = [statistics.fmean(column) - 0.7 * statistics.pvariance(column) for column in columns]
    np.testing.assert_allclose(combined(scores, "uncertainty", 0.7), expected, rtol=1e-12)
    np.testing.assert_allclose(disagreement(scores), [statistics.pstdev(column) for column in columns], rtol=1e-12)
    assert disagreement(np.float32([[1, 2], [1, 2]])).tolist() == [0, 0]


def test_where_the_members_agree_all_combinations_do():
    scores = np.tile([0.3, -1.2], (3, 1))
    for combine in ("mean", "minimum", "uncertainty"):
        np.testing.assert_allclose(combined(scores, combine, 2.0), [0.3, -1.2], rtol=1e-12)
