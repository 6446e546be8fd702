"""The sign test against counts by hand: of n fair coins, in how many of 2^n outcomes do so many show heads?"""

import itertools

import pytest

from pipelines.measures.statistics import sign_test

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("positive", "negative", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1 / 2),
        (3, 0, 1 / 8),
        (5, 0, 1 / 32),
        (4, 1, (5 + 1) / 32),
        (2, 3, (10 + 10 + 5 + 1) / 32),  # all but none and one of five: 26 of 32
        (0, 5, 1.0),
        (9, 1, 11 / 1024),
    ],
)
def test_the_p_value_is_the_share_of_outcomes_at_least_as_extreme(positive, negative, p):
    assert sign_test(positive, negative) == p


def test_all_counts_of_six_signs_by_enumeration():
    heads = [sum(outcome) for outcome in itertools.product((0, 1), repeat=6)]
    for positive in range(7):
        assert sign_test(positive, 6 - positive) == sum(count >= positive for count in heads) / 64


def test_many_signs_do_not_overflow():
    assert sign_test(3000, 0) == 0.0
    # By symmetry P(X >= 1000) of 2000 is (1 + P(X = 1000)) / 2, and P(X = 1000) is 1 / sqrt(1000 pi) up to 1/8000.
    assert sign_test(1000, 1000) == pytest.approx(0.5 * (1 + 1 / (1000 * 3.141592653589793) ** 0.5), rel=1e-5)


def test_counts_are_not_negative():
    with pytest.raises(ValueError, match="Signs are counted from 0. Received: positive=-1, negative=2"):
        sign_test(-1, 2)
