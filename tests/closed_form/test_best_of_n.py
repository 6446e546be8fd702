"""Best of n: the average over subsets against all of them, and the KL bound against a long discrete distribution."""

import itertools
import math

import numpy as np
import pytest

from pipelines.algorithms.best_of_n import best_of_n_kl, expected_best

pytestmark = pytest.mark.no_backend


def test_the_mean_over_all_subsets():
    random = np.random.default_rng(0)
    rewards, values = random.normal(size=(3, 6)), random.normal(size=(3, 6))
    rewards[1] = [2, 1, 2, 0, 1, 2]  # ties go to the later sample
    for size in range(1, 7):
        for row, found in enumerate(expected_best(rewards, values, size)):
            subsets = itertools.combinations(range(6), size)
            best = [max(subset, key=lambda i: (rewards[row, i], i)) for subset in subsets]
            assert found == pytest.approx(values[row, best].mean(), abs=1e-12)
    with pytest.raises(ValueError, match="from 1 to 6"):
        expected_best(rewards, values, 7)


def test_of_many_equal_rewards_the_last_sample_is_the_best():
    rewards = np.random.default_rng(1).integers(0, 2, (8, 200))
    last = [np.flatnonzero(row).max() for row in rewards]
    assert expected_best(rewards, np.tile(np.arange(200.0), (8, 1)), 200).tolist() == last


@pytest.mark.parametrize("n", [1, 2, 8])
def test_the_bound_is_met_as_atoms_vanish_and_held_before(n):
    """Of m equally likely responses with different rewards the i-th worst is the best of n with
    (i^n - (i-1)^n) / m^n."""
    for atoms, gap in ((4000, 0.01), (3, None)):
        ranks = np.arange(1, atoms + 1) / atoms
        best = ranks**n - (ranks - 1 / atoms) ** n
        kl = float(np.sum(best * np.log(best * atoms)))
        assert kl <= best_of_n_kl(n) + 1e-12
        assert gap is None or kl == pytest.approx(best_of_n_kl(n), abs=gap)
    assert best_of_n_kl(1) == 0 and best_of_n_kl(8) == pytest.approx(math.log(8) - 7 / 8)
