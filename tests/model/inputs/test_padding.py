"""The one padding, by hand."""

import pytest

from gemma_keras.inputs.padding import padded, round_up

pytestmark = pytest.mark.no_backend


def test_both_sides_by_hand():
    ids, is_token = padded([[2, 5], [2, 6, 7]], 9, 4, side="left")
    assert ids.tolist() == [[9, 9, 2, 5], [9, 2, 6, 7]] and ids.dtype == "int32"
    assert is_token.astype(int).tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    ids, is_token = padded([[2, 5], [2, 6, 7, 8]], 9, 4)
    assert ids.tolist() == [[2, 5, 9, 9], [2, 6, 7, 8]]
    assert is_token.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_rows_beyond_the_sequences_hold_one_padding_token_as_real():
    ids, is_token = padded([[2, 5]], 0, 3, rows=3)
    assert ids.tolist() == [[2, 5, 0], [0, 0, 0], [0, 0, 0]]
    assert is_token.astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(("width", "rows"), [(2, 2), (3, 1)])
def test_what_does_not_fit_is_refused(width, rows):
    with pytest.raises(ValueError, match=f"at most {rows} sequences of at most {width} tokens, got 2 of up to 3"):
        padded([[1], [1, 2, 3]], 0, width, rows=rows)


def test_widths_are_multiples():
    assert [round_up(length, 16) for length in (1, 16, 17)] == [16, 16, 32]
