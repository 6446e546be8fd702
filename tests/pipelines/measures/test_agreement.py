"""Agreement and Cohen's kappa by hand, against scikit-learn, and how often their intervals cover."""

import numpy as np
import pytest

from pipelines.measures.agreement import agreement_figures, cohens_kappa
from pipelines.measures.intervals import score_interval

pytestmark = pytest.mark.no_backend


def test_agreement_by_hand():
    found = agreement_figures([1, 1, 0, -1, 0], [1, -1, 1, -1, 0], np.arange(5))
    assert (found["pairs"], found["decided"]) == (5, 3)
    assert found["agreement"] == pytest.approx((1 + 0 + 0.5 + 1 + 1) / 5)
    assert found["agreement_ci95"] == pytest.approx(score_interval([1, 0, 0.5, 1, 1]))
    assert found["agreement_decided"] == pytest.approx(2 / 3)
    assert agreement_figures([0, 0], [1, -1], np.arange(2))["agreement_decided"] is None


def test_kappa_by_hand():
    """Cohen 1960's kind of table: 45 + 30 of 100 the same, by chance 0.6 · 0.6 + 0.4 · 0.4 = 0.52."""
    first = np.repeat([1, 1, -1, -1], [45, 15, 10, 30])
    second = np.repeat([1, -1, 1, -1], [45, 15, 10, 30])
    expected = 0.6 * 0.55 + 0.4 * 0.45
    kappa, interval = cohens_kappa(first, second)
    assert kappa == pytest.approx((0.75 - expected) / (1 - expected)) and interval[0] < kappa < interval[1]
    assert cohens_kappa([1, -1], [1, -1]) == (1.0, None) and cohens_kappa([1, 1], [1, 1]) == (None, None)
    assert cohens_kappa([1, -1], [-1, 1])[0] == -1


def test_kappa_and_its_error_are_those_of_others():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    first = rng.choice([1, 0, -1], 400, p=[0.5, 0.2, 0.3])
    second = np.where(rng.random(400) < 0.6, first, rng.choice([1, 0, -1], 400))
    kappa, (low, high) = cohens_kappa(first, second)
    assert kappa == pytest.approx(metrics.cohen_kappa_score(first, second))
    # Fleiss, Cohen and Everitt 1969, equation 13, written out over the table.
    table = np.array([[np.mean((first == a) & (second == b)) for b in (1, 0, -1)] for a in (1, 0, -1)])
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    p_o, p_e = np.trace(table), rows @ columns
    total = sum(
        table[i, j]
        * ((i == j) * (1 - p_e) - (columns[i] + rows[j]) * (1 - p_o)) ** 2
        for i in range(3) for j in range(3)
    )  # fmt: skip
    error = np.sqrt((total - (p_o * p_e - 2 * p_e + p_o) ** 2) / (400 * (1 - p_e) ** 4))
    assert (high - low) / 2 == pytest.approx(1.966 * error, rel=0.01)


def judged(seed, accuracy=0.8, n=200):
    """What people say, and a judge that is right by a draw of that chance."""
    rng = np.random.default_rng(seed)
    people = rng.choice([1, -1], n)
    return np.where(rng.random(n) < accuracy, people, -people), people


def test_a_judge_of_known_accuracy_is_measured_within_its_interval():
    def covers(seed):
        low, high = agreement_figures(*judged(seed), np.arange(200))["agreement_ci95"]
        return low <= 0.8 <= high

    found = [covers(seed) for seed in range(2000)]
    print(f"accuracy 0.8 on 200 pairs: inside in {sum(found[:100])} of 100, coverage over 2,000 {np.mean(found):.2%}")
    assert sum(found[:100]) >= 92 and 0.93 <= np.mean(found) <= 0.97


def test_the_interval_of_kappa_covers():
    """Its truth: 2 · 0.8 - 1, as either answer is the better by chance."""
    found = []
    for seed in range(600):
        low, high = cohens_kappa(*judged(seed))[1]
        found.append(low <= 0.6 <= high)
    print(f"kappa 0.6 on 200 pairs: coverage over 600 {np.mean(found):.2%}")
    assert 0.925 <= np.mean(found) <= 0.975


def test_pairs_of_one_prompt_count_as_one():
    judge, people = judged(5, n=50)
    once = cohens_kappa(judge, people)[1]
    fourfold = cohens_kappa(np.repeat(judge, 4), np.repeat(people, 4), np.repeat(np.arange(50), 4))[1]
    assert fourfold == pytest.approx(once)
    same = [1 - abs(one - other) / 2 for one, other in zip(judge, people, strict=True)]
    found = agreement_figures(np.repeat(judge, 4), np.repeat(people, 4), np.repeat(np.arange(50), 4))
    assert found["agreement_ci95"] == pytest.approx(score_interval(same))
