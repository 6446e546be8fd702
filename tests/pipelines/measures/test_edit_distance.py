"""Edit distances of many pairs at once, against the recursion that defines them."""

import functools

import numpy as np
import pytest

from pipelines.measures.edit_distance import edit_distances

pytestmark = pytest.mark.no_backend


def by_definition(first, second):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


def test_a_table_by_hand():
    # kitten → sitting: two letters changed, one added; the words padded behind their end.
    first = [[ord(letter) for letter in word] for word in ("kitten?", "sitting", "???????", "itting?")]
    second = [[ord(letter) for letter in "sitting"]] * 4
    assert edit_distances(first, [6, 7, 0, 6], second).tolist() == [3, 0, 7, 1]


def test_against_the_definition_on_sequences_of_every_length():
    random = np.random.default_rng(3)
    first, second = random.integers(0, 3, (200, 7)), random.integers(0, 3, (200, 5))
    lengths = random.integers(0, 8, 200)
    expected = [
        by_definition(tuple(a[:length].tolist()), tuple(b.tolist()))
        for a, length, b in zip(first, lengths, second, strict=True)
    ]
    assert edit_distances(first, lengths, second).tolist() == expected and len(set(expected)) > 5
