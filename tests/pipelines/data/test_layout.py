"""Sequences side by side: hand-made arrays, and what every layout keeps."""

import itertools

import numpy as np
import pytest

from gemma_keras.config import GemmaConfig
from gemma_keras.limits import BRANCHES
from pipelines.data.branches import Branches
from pipelines.data.layout import (
    Layout,
    Part,
    _row_counts,
    costly_width,
    known_layout,
    lay_out,
    lay_out_items,
    step_layout,
)
from pipelines.data.shapes import alike_lengths, length_rungs

pytestmark = pytest.mark.no_backend


# The quickstart's model: attention to 416 keys costs a token as much as its products do.
CONFIG = GemmaConfig(
    vocabulary_size=704, num_layers=4, hidden_dim=128, intermediate_dim=384, num_query_heads=4, num_key_value_heads=4,
    head_dim=32,
)  # fmt: skip
LARGE = GemmaConfig()  # of two billion parameters: 13,000


def cut(lengths, update_size, micro_batch_size):
    """Updates of so many items in their order, and the micro-batches that they have without packing."""
    longest = lengths.max(axis=1)
    starts = range(0, len(lengths), update_size)
    every = np.arange(len(lengths))
    return [alike_lengths(every[start : start + update_size], longest, micro_batch_size) for start in starts]


def known(lengths, update_size, micro_batch_size, config=CONFIG):
    updates = cut(lengths, update_size, micro_batch_size)
    return updates, known_layout(lengths, updates, micro_batch_size, length_rungs(int(lengths.max())), config)


def test_a_part_by_hand():
    part = Part(np.array([7, 4, 9]), [[0, 2], [1]])
    arrays, row_of, start_of = lay_out([[5, 6, 7], [8], [9, 10]], part, 6, 3, pad_token_id=1)
    assert arrays["token_ids"].tolist() == [[5, 6, 7, 9, 10, 1], [8, 1, 1, 1, 1, 1], [1] * 6]
    assert arrays["segment_ids"].tolist() == [[1, 1, 1, 2, 2, 0], [1, 0, 0, 0, 0, 0], [0] * 6]
    assert arrays["positions"].tolist() == [[0, 1, 2, 0, 1, 0], [0] * 6, [0] * 6]
    assert arrays["padding_mask"].tolist() == (np.array(arrays["segment_ids"]) > 0).tolist()
    assert row_of.tolist() == [0, 1, 0] and start_of.tolist() == [0, 0, 3]


@pytest.mark.parametrize("are_joined", [False, True])
def test_items_by_hand(are_joined):
    """Of three items the last and the first, apart three a row, or joined with the 2 that their sequences share."""
    items = [[[2, 5], [2, 6, 7]], [[2, 8], [2, 9]], [[2, 1], [2, 3]]]
    families = [Branches(first[:1], [first[1:], second[1:]]) for first, second in items] if are_joined else None
    part = Part(np.array([2, 0]), [[1], [0]] if are_joined else [[0, 1, 2], [3]])
    layout = Layout(7, [[part]], [2, 4], families)
    arrays, places = lay_out_items(items, part, layout, pad_token_id=4)
    a, b = BRANCHES, 2 * BRANCHES
    expected = (
        ([[2, 5, 6, 7, 4, 4, 4], [2, 1, 3, 4, 4, 4, 4]], [[0, 1, 1, 2, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0]],
         [[1, a + 1, b + 1, b + 1, 0, 0, 0], [1, a + 1, b + 1, 0, 0, 0, 0]],
         [(1, [0, 1]), (1, [0, 2]), (0, [0, 1]), (0, [0, 2, 3])])
        if are_joined
        else ([[2, 1, 2, 3, 2, 5, 4], [2, 6, 7, 4, 4, 4, 4]], [[0, 1, 0, 1, 0, 1, 0], [0, 1, 2, 0, 0, 0, 0]],
              [[1, 1, 2, 2, 3, 3, 0], [1, 1, 1, 0, 0, 0, 0]],
              [(0, [0, 1]), (0, [2, 3]), (0, [4, 5]), (1, [0, 1, 2])])
    )  # fmt: skip
    found = [arrays[name].tolist() for name in ("token_ids", "positions", "segment_ids")]
    assert (*found, [(row, columns.tolist()) for row, columns in places]) == expected


@pytest.mark.parametrize(("sides", "micro_batch_size", "longest"), [(1, 32, 48), (2, 32, 48), (1, 4, 300), (2, 2, 300)])
def test_an_update_keeps_its_items_whole_in_few_shapes_of_no_more_positions(sides, micro_batch_size, longest):
    lengths = np.random.default_rng(1).integers(3, longest // 2, size=(330, sides))
    lengths[17, 0] = longest
    updates, layout = known(lengths, 32, micro_batch_size, LARGE)
    rungs = length_rungs(longest)
    assert len(layout.parts) == len(updates) and layout.width == max(128, rungs[-1])
    for update, parts in zip(updates, layout.parts, strict=True):
        assert sorted(np.concatenate([part.items for part in parts])) == sorted(np.concatenate(update))
        for part in parts:
            own = lengths[part.items].reshape(-1)
            assert sorted(itertools.chain(*part.rows)) == list(range(len(own)))
            assert max(own[row].sum() for row in part.rows) <= layout.width
            assert len(part.rows) <= layout.rows_of(part)
            assert layout.rows_of(part) * layout.width <= micro_batch_size * sides * rungs[-1]
    assert len(layout.row_counts) <= 4
    held = sum(layout.rows_of(part) * layout.width for part in itertools.chain(*layout.parts))
    # The very long row alone makes rows wide; the last update is small.
    assert lengths.sum() > 0.75 * held


def test_nothing_is_packed_where_attention_costs_more_than_padding():
    short = np.full((64, 1), 250)
    short[0] = 1024
    assert known(short, 64, 4)[1] is None  # four in a row of 1024, against one in 256
    short[1:] = 190
    assert known(short, 64, 4)[1] is None  # a quarter is padding
    assert known(short, 64, 4, LARGE)[1] is not None
    assert costly_width(CONFIG) == pytest.approx(416, abs=2) and 12_000 < costly_width(LARGE) < 14_000
    assert known(np.full((64, 1), 30), 8, 8)[1] is None  # nothing is padded
    assert known(np.full((64, 1), 33), 8, 8)[1] is not None  # half is, in rows of 64


def test_numbers_of_rows_by_hand():
    assert _row_counts([7] * 80 + [8] * 20) == [7, 8]  # 720 rows in place of 800
    assert _row_counts([7] * 20 + [8] * 80) == [8]  # 780: not worth a compilation
    # At most four: 81 parts of 1 row, 27 of 3, ... 1 of 81. The best second is 3 or 9 (1377 rows), and so on.
    assert _row_counts([1] * 81 + [3] * 27 + [9] * 9 + [27] * 3 + [81]) == [1, 3, 9, 81]


def test_steps_share_three_shapes():
    random, shapes = np.random.default_rng(2), set()
    for mean in (10, 15, 22, 30, 38, 47):
        lengths = random.integers(mean - 4, mean + 5, size=128)
        layout = step_layout(lengths, 51, 128)
        if layout is None:
            assert mean > 30
            continue
        (parts,) = layout.parts
        shapes.add((layout.row_counts[0], layout.most_items(), layout.width))
        assert sorted(np.concatenate([part.items for part in parts])) == list(range(128))
        assert all(lengths[part.items][row].sum() <= 128 for part in parts for row in part.rows)
        assert max(len(part.rows) for part in parts) <= layout.row_counts[0] <= 39  # three quarters of 51
    assert len(shapes) == 3


def test_a_step_of_micro_batches_has_fewer_of_them():
    lengths = np.random.default_rng(3).integers(100, 500, size=64)
    layout = step_layout(lengths, 800, 4)
    (parts,) = layout.parts
    assert len(parts) == 7 and layout.row_counts == [4] and layout.most_items() == 10  # 16 of 4 without
    two = np.random.default_rng(4).choice([300, 310], size=64)  # those of one length keep their order
    (parts,), ordered = step_layout(two, 800, 4).parts, sorted(range(64), key=lambda item: -two[item])
    assert [part.items.tolist() for part in parts] == [ordered[first :: len(parts)] for first in range(len(parts))]
    assert step_layout(np.full(64, 700), 800, 4) is None
    assert step_layout(np.full(4, 9), 10, 4) is None
