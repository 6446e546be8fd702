"""Work that a kill costs, by hand."""

import math

import pytest

from benchmarks.lost_work import mean_lost

pytestmark = pytest.mark.no_backend


def test_a_stage_without_states_loses_half_of_itself():
    assert mean_lost([100.0], math.inf) == 50.0
    # 10 of 40 s in the first, of which 5 are lost; 30 in the second, of which 15 are.
    assert mean_lost([10.0, 30.0], math.inf) == pytest.approx(0.25 * 5 + 0.75 * 15)


def test_with_states_half_an_interval_and_half_of_what_is_left_over():
    assert mean_lost([90.0], 30.0) == 15.0
    assert mean_lost([20.0], 30.0) == 10.0
    # 60 s that lose 15 each, 10 s that lose 5.
    assert mean_lost([70.0], 30.0) == pytest.approx((60 * 15 + 10 * 5) / 70)
