"""Sequences with one beginning, by hand; that a model computes the same for them is in stages/test_packing.py."""

import numpy as np
import pytest

from gemma_keras.limits import BRANCHES
from pipelines.data.branches import Branches, branches_of, joined_items, lay_out_branches

pytestmark = pytest.mark.once


def test_as_much_is_shared_as_is_alike_but_for_the_last_id():
    assert branches_of([[2, 7, 8, 5], [2, 7, 9]]) == Branches([2, 7], [[8, 5], [9]])
    assert branches_of([[2, 7], [2, 7, 9], [2, 7]]) == Branches([2], [[7], [7, 9], [7]])
    assert branches_of([[2, 7, 8], [2, 7, 8]]) == Branches([2, 7], [[8], [8]])
    assert len(branches_of([[2, 7, 8, 5], [2, 7, 9]])) == 5


def test_items_are_joined_all_or_none():
    pair = [[2, 7, 8], [2, 9]]
    assert joined_items([pair, pair]) == [branches_of(pair)] * 2
    assert joined_items([pair, [[2, 7], [3, 7]]]) is None, "another beginning"
    assert joined_items([pair, [[2], [2, 7]]]) is None, "nothing left for its end"
    assert joined_items([[[2, 7]]]) is None, "one sequence"


def test_rows_and_places():
    families = [Branches([2, 7], [[8, 5], []]), Branches([2], [[9], [6, 4]]), Branches([2, 3], [[1]])]
    arrays, places = lay_out_branches(families, [[1, 0], [2]], (3, 9), pad_token_id=11)
    assert arrays["token_ids"].tolist() == [[2, 9, 6, 4, 2, 7, 8, 5, 11], [2, 3, 1] + [11] * 6, [11] * 9]
    assert arrays["positions"].tolist() == [[0, 1, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2] + [0] * 6, [0] * 9]
    a, b = BRANCHES, 2 * BRANCHES
    first = [1, a + 1, b + 1, b + 1, 2, 2, a + 2, a + 2, 0]
    assert arrays["segment_ids"].tolist() == [first, [1, 1, a + 1] + [0] * 6, [0] * 9]
    assert (arrays["padding_mask"] == (arrays["token_ids"] != 11)).all()
    assert [place.row for place in places] == [0, 0, 1]
    assert places[1].positions(1, np.arange(3)).tolist() == [0, 2, 3]
    assert places[0].positions(0, np.array([1, 3])).tolist() == [5, 7]
    assert places[0].positions(1, np.array([0, 1])).tolist() == [4, 5]
