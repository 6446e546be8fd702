"""Diversity of a rollout, by hand."""

import pytest

from pipelines.measures.diversity import distinct_ngrams, equal_pairs

pytestmark = pytest.mark.no_backend


def test_distinct_bigrams_are_counted_over_all_responses():
    assert distinct_ngrams([[1, 2, 3], [1, 2], [4]], 2) == pytest.approx(2 / 3)  # 12, 23, 12
    assert distinct_ngrams([[1, 2, 1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct_ngrams([[1], [1]], 2) == 1 and distinct_ngrams([], 2) == 1
    assert distinct_ngrams([[1], [1], [2]], 1) == pytest.approx(2 / 3)


def test_equal_pairs_are_counted_within_a_prompt():
    assert equal_pairs([[1], [1], [1], [2], [2], [3]], 3) == pytest.approx((3 + 1) / 6)
    assert equal_pairs([[1], [2], [1], [2]], 2) == 0  # the same answers to different prompts
    assert equal_pairs([[1, 2], [1, 2]], 2) == 1 and equal_pairs([[1], [1]], 1) == 0 and equal_pairs([], 4) == 0
