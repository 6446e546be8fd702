"""Answers beside their prompt, by hand; that numbers stay those of one answer a row is in stages/test_packing.py."""

import dataclasses

import numpy as np
import pytest
from policy_fixture import rollout_of

from gemma_keras.limits import BRANCHES
from pipelines.sampling.parts import scoring_parts
from pipelines.sampling.shared_prompts import shared_parts

pytestmark = pytest.mark.once

FIRST, SECOND = [2, 7, 8], [2, 9]
ANSWERS = [[5, 6, 1], [4], [3, 1], [4, 4, 4]]
A, B = BRANCHES, 2 * BRANCHES


def drawn(prompts, answers, k):
    rollout = rollout_of(prompts, answers, [True] * len(answers), [""] * len(answers))
    return dataclasses.replace(rollout, answers_per_prompt=k)


def test_a_row_by_hand():
    rollout = drawn([FIRST, FIRST, SECOND, SECOND], ANSWERS, 2)
    ((arrays, rows),) = shared_parts(rollout, 40)
    assert rows.tolist() == [0, 1, 2, 3] and arrays["token_ids"].shape == (1, 128)
    assert arrays["token_ids"][0, :11].tolist() == [*FIRST, 5, 6, *SECOND, 3, 4, 4, 0]
    assert arrays["positions"][0, :10].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 2, 3]
    assert arrays["segment_ids"][0, :10].tolist() == [1, 1, 1, A + 1, A + 1, 2, 2, A + 2, B + 2, B + 2]
    assert arrays["padding_mask"].sum() == 10 and not arrays["padding_mask"][0, 10:].any()
    assert arrays["target_ids"].tolist() == [[5, 6, 1], [4, 0, 0], [3, 1, 0], [4, 4, 4]]
    assert arrays["response_mask"].tolist() == (np.array(arrays["target_ids"]) > 0).tolist()
    assert arrays["target_positions"].tolist() == [[2, 3, 4], [2, 0, 0], [6, 7, 0], [6, 8, 9]]
    assert not arrays["target_rows"].any()


def test_a_prompt_without_room_for_all_its_answers_stands_in_several_rows():
    long = list(range(3, 103))
    rollout = drawn([long] * 8, [[5] * 9 + [1]] * 8, 8)
    ((arrays, rows),) = shared_parts(rollout, 8)
    assert rows.tolist() == list(range(8)) and arrays["token_ids"].shape[1] == 128
    real = arrays["padding_mask"].sum(axis=1)
    assert sorted(real[real > 0].tolist()) == [118, 127, 127], "three answers of 9 read tokens beside 100 a row"
    assert np.bincount(arrays["target_rows"][:, 0])[:3].tolist() == [3, 3, 2]


def test_what_shares_nothing_is_cut_as_before():
    alone = drawn([FIRST, SECOND], ANSWERS[:2], 1)
    assert all("segment_ids" not in arrays for arrays, _ in scoring_parts(alone, 2))
    # As many rows as answers would be needed: nothing is saved. And a part of two answers cannot hold all three.
    assert shared_parts(drawn([list(range(3, 140))] * 2, [[5] * 9] * 2, 2), 2) is None
    assert shared_parts(drawn([list(range(3, 140))] * 3, [[5, 1]] * 3, 3), 1) is None


def test_parts_hold_what_they_must():
    """21 prompts of 100 and 99 tokens in turns, a row each: dealt the longer ones first, equal ones in their order, and
    the parts that get one more say how many rows and answers all have room for."""
    prompts = [list(range(3, 103 - number % 2)) for number in range(21) for _ in range(2)]
    parts = list(shared_parts(drawn(prompts, [[5, 6, 1]] * 42, 2), 6))
    order = [*range(0, 42, 4), *range(2, 42, 4)]
    assert [rows.tolist()[::2] for _, rows in parts] == [order[first :: len(parts)] for first in range(len(parts))]
    assert len({len(rows) for _, rows in parts}) == 2, "uneven, as 21 prompts are"
    shapes = {(*arrays["token_ids"].shape, *arrays["target_ids"].shape) for arrays, _ in parts}
    (shape,) = shapes
    most = max(len(rows) for _, rows in parts)
    assert shape[2] == most and all(arrays["response_mask"].any(axis=1).sum() == len(rows) for arrays, rows in parts)
    assert max((arrays["padding_mask"].any(axis=1)).sum() for arrays, _ in parts) == most // 2


def test_a_row_may_be_full_to_the_last_token():
    """128 = 100 + 4 answers of which 7 tokens are read each."""
    rollout = drawn([list(range(3, 103))] * 4, [[5] * 7 + [1]] * 4, 4)
    ((arrays, _),) = shared_parts(rollout, 4)
    assert arrays["padding_mask"].sum(axis=1).max() == 128
    # An answer of one token is asked for, and none of it is read.
    rollout = drawn([list(range(3, 131))] * 2, [[5], [1]], 2)
    ((arrays, _),) = shared_parts(rollout, 2)
    assert arrays["token_ids"].shape == (1, 129) and arrays["padding_mask"].sum() == 128


def test_few_shapes_however_long_the_answers():
    random, shapes = np.random.default_rng(3), set()
    for _ in range(40):
        prompts = [random.integers(3, 99, random.integers(20, 60)).tolist() for _ in range(16)]
        lengths = random.integers(1, random.integers(8, 20), 128)
        lengths[0], prompts[0] = 20, prompts[0] + [3] * (60 - len(prompts[0]))
        rollout = drawn([prompt for prompt in prompts for _ in range(8)], [[5] * length for length in lengths], 8)
        parts = list(shared_parts(rollout, 64))
        shapes.update((*arrays["token_ids"].shape, *arrays["target_ids"].shape) for arrays, _ in parts)
        assert sorted(np.concatenate([rows for _, rows in parts]).tolist()) == list(range(128))
        assert all(arrays["token_ids"].size <= 64 * 80 for arrays, _ in parts)
    assert len(shapes) <= 4
