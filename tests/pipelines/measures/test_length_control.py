"""The length-controlled win rate: the fit against scikit-learn's, its value where lengths decide all or nothing, and
how often its interval covers."""

import numpy as np
import pytest

from pipelines.measures.length_control import fit, length_controlled, length_features

pytestmark = pytest.mark.no_backend


def lengths(rng, n, mean=40.0):
    return np.round(rng.normal(mean, 80, n) + 20 * rng.gumbel(size=n))


def drawn(rng, n, policy, length, ties=0.0):
    """Outcomes of a judge that is a logistic function of the policy and of the length, and the lengths."""
    differences = lengths(rng, n)
    chance = 1 / (1 + np.exp(-(policy + length * np.tanh(differences / differences.std()))))
    outcomes = (rng.random(n) < chance).astype(float)
    return np.where(rng.random(n) < ties, 0.5, outcomes), differences


def test_the_features_by_hand():
    found = length_features([3.0, -3.0, 3.0, -3.0])
    assert found == pytest.approx(np.array([[1, np.tanh(1)], [1, -np.tanh(1)]] * 2))
    assert (length_features([7.0, 7.0])[:, 1] == 0).all()


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_the_fit_is_that_of_scikit_learn(ties):
    linear_model = pytest.importorskip("sklearn.linear_model")
    outcomes, differences = drawn(np.random.default_rng(1), 300, 0.4, 1.5, ties)
    features = length_features(differences)
    # One ridge for both weights there: the features are scaled to carry ours. A tie is half a win and half a loss.
    scale = np.sqrt([0.1, 0.01])
    rows = np.concatenate([features, features]) / scale
    labels = np.repeat([1, 0], len(outcomes))
    weights = np.concatenate([outcomes, 1 - outcomes])
    known = linear_model.LogisticRegression(C=1.0, fit_intercept=False, tol=1e-12, max_iter=10000)
    known.fit(rows[weights > 0], labels[weights > 0], weights[weights > 0])
    assert fit(outcomes, features) == pytest.approx(known.coef_[0] / scale, abs=1e-4)


def test_where_lengths_say_nothing_it_is_the_win_rate():
    outcomes = np.array([1.0] * 60 + [0.0] * 40)
    rate, interval = length_controlled(outcomes, np.zeros(100))
    assert rate == pytest.approx(0.6, abs=0.001) and interval == pytest.approx((0.501, 0.692), abs=0.01)
    swapped, _ = length_controlled(1 - outcomes, np.zeros(100))
    assert swapped == pytest.approx(1 - rate)


def test_a_judge_that_takes_the_longer_answer_knows_no_better_policy():
    """One policy is the longer in seven of ten pairs and wins these; with lengths as far apart either way it is level
    to the digit."""
    found, covered = [], 0
    for seed in range(30):
        differences = lengths(np.random.default_rng(seed), 400)
        outcomes = np.where(differences > 0, 1.0, np.where(differences < 0, 0.0, 0.5))
        assert outcomes.mean() > 0.65
        rate, interval = length_controlled(outcomes, differences)
        found.append(rate)
        covered += interval[0] < 0.5 < interval[1]
    print(f"plain 0.7, length-controlled {np.mean(found):.3f}, half in its interval in {covered} of 30")
    assert np.mean(found) == pytest.approx(0.5, abs=0.03) and covered == 30
    both_ways = np.concatenate([np.arange(1.0, 50), -np.arange(1.0, 50)])
    assert length_controlled((both_ways > 0).astype(float), both_ways)[0] == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(
    ("policy", "length", "ties"), [(0.0, 2.0, 0.0), (0.8, 1.0, 0.0), (0.0, 0.0, 0.5), (0.8, 1.0, 0.3)]
)
def test_the_interval_covers(policy, length, ties):
    truth, covered = (1 - ties) / (1 + np.exp(-policy)) + ties / 2, 0
    for seed in range(200):
        _, interval = length_controlled(*drawn(np.random.default_rng(seed), 150, policy, length, ties))
        covered += interval[0] < truth < interval[1]
    print(f"policy {policy}, length {length}, ties {ties}: {covered / 2} %")
    assert covered >= 182


def test_pairs_of_one_prompt_count_as_one():
    outcomes, differences = drawn(np.random.default_rng(3), 60, 0.5, 1.0)
    once = length_controlled(outcomes, differences)[1]
    fourfold = length_controlled(np.repeat(outcomes, 4), np.repeat(differences, 4), np.repeat(np.arange(60), 4))[1]
    assert np.subtract(*fourfold) == pytest.approx(np.subtract(*once), rel=0.15)


def test_what_cannot_be_known_has_no_interval():
    rate, interval = length_controlled(np.ones(20), np.arange(20.0))
    assert interval is None and 0.85 < rate < 1
    assert length_controlled([1.0, 0.0], [5.0, -5.0])[1] is None
