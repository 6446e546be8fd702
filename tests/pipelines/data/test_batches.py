"""Packing and batches against hand-made arrays."""

import dataclasses

import numpy as np
import pytest

from pipelines.data.batches import bucket, bucket_sizes, make_batch
from pipelines.data.packing import fit_length, pack, packing_efficiency
from pipelines.host.errors import DataError

pytestmark = pytest.mark.no_backend


@dataclasses.dataclass(frozen=True)
class Example:
    token_ids: list
    is_target: list


def example(ids, prompt=1):
    return Example(list(ids), [i >= prompt for i in range(len(ids))])


def lengths_of(sizes):
    return [example(range(100 * n, 100 * n + size)) for n, size in enumerate(sizes, 1)]


def test_bucket():
    assert [bucket(n) for n in (1, 2, 3, 5, 17, 32, 33, 64, 65)] == [1, 2, 4, 8, 32, 32, 64, 64, 96]
    assert bucket(40, max_length=48) == 48


def test_one_shape_fits_the_longest_example_and_the_most_targets():
    examples = [example(range(9), prompt=8), example(range(3)), example(range(40), prompt=37)]
    assert bucket_sizes(examples) == (64, 4)
    assert bucket_sizes(examples, max_length=48) == (48, 4)
    assert bucket_sizes([example(range(3), prompt=3)]) == (4, 1)


def test_batch_by_hand():
    examples = [example([2, 7, 8, 9, 1], prompt=3), example([2, 5, 1], prompt=1)]
    batch = make_batch(examples, pad_token_id=0, length=6, target_length=4, rows=3)
    assert batch["token_ids"].tolist() == [[2, 7, 8, 9, 1, 0], [2, 5, 1, 0, 0, 0], [0] * 6]
    assert batch["padding_mask"].astype(int).tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert batch["target_ids"].tolist() == [[9, 1, 0, 0], [5, 1, 0, 0], [0, 0, 0, 0]]
    assert batch["target_positions"].tolist() == [[2, 3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert batch["target_mask"].astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(
        ValueError, match="at most 2 examples of at most 4 tokens and 4 targets, got 2 of up to 5 and 2"
    ):
        make_batch(examples, pad_token_id=0, length=4, target_length=4)


def test_packing_keeps_every_document_whole():
    random = np.random.default_rng(1)
    documents = lengths_of(random.integers(2, 33, size=300))
    rows = pack(documents, 64)
    assert rows == pack(documents, 64)
    found = []
    for row in rows:
        assert len(row.token_ids) == len(row.is_target) == len(row.positions) == len(row.segment_ids) <= 64
        for segment in range(1, max(row.segment_ids) + 1):
            at = [i for i, s in enumerate(row.segment_ids) if s == segment]
            assert at == list(range(at[0], at[-1] + 1))
            assert [row.positions[i] for i in at] == list(range(len(at)))
            assert [row.is_target[i] for i in at] == [False] + [True] * (len(at) - 1)
            found.append(tuple(row.token_ids[i] for i in at))
    assert sorted(found) == sorted(tuple(document.token_ids) for document in documents)
    assert packing_efficiency(rows, 64) > 0.97


def test_packed_batch_by_hand():
    (row,) = pack([example([2, 5, 1]), example([2, 6])], 8)
    batch = make_batch([row], pad_token_id=0, length=8, target_length=4, rows=2)
    assert batch["token_ids"].tolist() == [[2, 5, 1, 2, 6, 0, 0, 0], [0] * 8]
    assert batch["positions"].tolist() == [[0, 1, 2, 0, 1, 0, 0, 0], [0] * 8]
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["target_ids"].tolist() == [[5, 1, 6, 0], [0] * 4]
    assert batch["target_positions"].tolist() == [[0, 1, 3, 0], [0] * 4]
    with pytest.raises(ValueError, match="Expected examples of 1 to 4 tokens, got 5 to 5"):
        pack([example(range(5))], 4)


def test_overlong():
    documents = [example(range(3)), example(range(9)), Example(list(range(9)), [False] * 8 + [True])]
    dropped = fit_length(documents, 5, "drop")
    assert (dropped.kept, dropped.dropped, dropped.truncated) == ([0], 2, 0)
    cut = fit_length(documents, 5, "truncate")
    assert ([len(e.token_ids) for e in cut.examples], cut.dropped, cut.truncated) == ([3, 5], 1, 1)
    with pytest.raises(DataError, match=r"f:2: 9 tokens, more than max_length 5. Raise max_length"):
        fit_length(documents, 5, "error", origins=["f:1", "f:2", "f:3"])
    with pytest.raises(DataError, match="f:1: all 3 examples are over max_length 2"):
        fit_length(documents, 2, "drop", origins=["f:1", "f:2", "f:3"])
