"""Pairs and verdicts from rollouts by hand: what is dropped, who wins how often, and what comes back from people."""

import json

import numpy as np
import pytest
from policy_fixture import prompts_of, rollout_of

from gemma_keras.random import generator
from pipelines.data.columns import Prompt, read_preference
from pipelines.data.contents import prompt_hashes
from pipelines.data.jsonl import Row
from pipelines.host.errors import DataError
from pipelines.sampling.prompts import Prompts
from pipelines.stages.preference_collection.pairs import (
    Verdict,
    export_rows,
    make_pairs,
    preference_rows,
    rate_by_people,
    rate_by_scores,
)

pytestmark = pytest.mark.no_backend


def many(count):
    """`count` prompts with two different responses each, the second one better by 1."""
    responses = [[10 + i % 2, 20 + i // 2] for i in range(2 * count)]
    rollout = rollout_of(
        [[2, 5]] * 2 * count, responses, [True] * 2 * count, [str(r) for r in responses], np.repeat(np.arange(count), 2)
    )
    return rollout, np.tile([0.0, 1.0], count)


def test_pairs_that_read_the_same_are_dropped_and_counted():
    texts = ["a", "a", "b", "a", "a", "a"]
    finished = [True, True, True, True, True, False]
    rollout = rollout_of([[2]] * 6, [[1], [3], [4], [5], [6], [7]], finished, texts, [0, 0, 0, 1, 1, 1])
    pairs, identical = make_pairs(rollout, 3, seed=0, stage="s")
    assert identical == 2
    assert {frozenset((pair.first, pair.second)) for pair in pairs} == {
        frozenset(p) for p in ((0, 2), (1, 2), (3, 5), (4, 5))
    }


def test_the_order_shown_is_a_fair_coin_that_depends_on_the_key():
    rollout, _ = many(400)
    orders = {seed: [pair.first < pair.second for pair in make_pairs(rollout, 2, seed, "s")[0]] for seed in (0, 1)}
    assert 0.4 < np.mean(orders[0]) < 0.6
    assert orders[0] != orders[1]
    assert orders[0] == [pair.first < pair.second for pair in make_pairs(rollout, 2, 0, "s")[0]]


def test_the_noisy_rater_takes_the_better_one_as_often_as_bradley_terry_says():
    rollout, scores = many(3000)
    pairs, _ = make_pairs(rollout, 2, 0, "s")
    for scale in (0.5, 2.0):
        verdicts, ties = rate_by_scores(pairs, scores, rollout.prompt_index, scale, 0, "s")
        better = [verdict.chosen % 2 == 1 for verdict in verdicts]
        expected = 1 / (1 + np.exp(-1 / scale))
        assert ties == 0 and np.mean(better) == pytest.approx(expected, abs=0.03)
        stated = [verdict.probability for verdict in verdicts]
        assert np.allclose(stated, np.where(better, expected, 1 - expected))


def test_the_rater_without_noise_drops_ties():
    rollout, scores = many(3)
    scores[4:] = 0.5
    verdicts, ties = rate_by_scores(make_pairs(rollout, 2, 0, "s")[0], scores, rollout.prompt_index, 0.0, 0, "s")
    assert ties == 1 and [(v.chosen, v.rejected, v.probability) for v in verdicts] == [(1, 0, 1.0), (3, 2, 1.0)]


def test_a_noisy_tie_is_a_coin_flip():
    rollout, scores = many(2000)
    pairs, _ = make_pairs(rollout, 2, 0, "s")
    verdicts, _ = rate_by_scores(pairs, scores * 0, rollout.prompt_index, 1.0, 0, "s")
    assert np.mean([v.chosen == pair.first for v, pair in zip(verdicts, pairs, strict=True)]) == pytest.approx(
        0.5, abs=0.04
    )
    assert {v.probability for v in verdicts} == {0.5}


def test_the_pairs_of_one_prompt_are_decided_one_by_one():
    """Ten pairs of each prompt, all of equal scores: not one coin for all ten."""
    count = 5
    responses = [[10 + number] for number in range(count)] * 40
    index = np.repeat(np.arange(40), count)
    rollout = rollout_of([[2]] * len(index), responses, [True] * len(index), [str(r) for r in responses], index)
    pairs, _ = make_pairs(rollout, count, 0, "s")
    verdicts, _ = rate_by_scores(pairs, np.zeros(len(index)), index, 1.0, 0, "s")
    took_first = np.array([v.chosen == pair.first for v, pair in zip(verdicts, pairs, strict=True)]).reshape(40, 10)
    # Of ten fair coins one prompt in 512 has ten alike; the variance of their sum is 10 / 4, of one coin it is 25.
    assert 1.2 < took_first.sum(axis=1).var() < 5
    # Each by a number of its own, keyed by the prompt and the number of the pair among its prompt's.
    draws = [generator(0, "s", "rating", prompt, number).random() for prompt in range(40) for number in range(10)]
    assert took_first.reshape(-1).tolist() == [draw < 0.5 for draw in draws]


def test_people_decide_by_majority(tmp_path):
    rollout, _ = many(5)
    pairs, _ = make_pairs(rollout, 2, 0, "s")
    prompts = prompts_of([[2, 5]] * 5)
    shown = export_rows(pairs, rollout, prompts)
    assert set(shown[0]) == {"id", "prompt", "first", "second"} and shown[2]["prompt"] == "prompt 2"
    assert shown[1]["first"] == rollout.texts[pairs[1].first]
    votes = [(0, "first"), (1, "second"), (2, "tie"), (3, "first"), (3, "second"), (3, "second")]
    path = tmp_path / "ratings.jsonl"
    path.write_text("".join(json.dumps({"id": shown[i]["id"], "choice": choice}) + "\n" for i, choice in votes))
    verdicts, ties, unrated = rate_by_people(pairs, path)
    assert (ties, unrated) == (1, 1)
    expected = [(pairs[0].first, pairs[0].second), (pairs[1].second, pairs[1].first), (pairs[3].second, pairs[3].first)]
    assert [(v.chosen, v.rejected) for v in verdicts] == expected
    rows = preference_rows(verdicts, rollout, prompts, None)
    assert rows[0]["chosen_ids"] == rollout.response_list(pairs[0].first) and rows[0]["probability"] is None
    with path.open("a") as file:
        file.write('{"id": "0", "choice": "first"}\n')
    with pytest.raises(DataError, match="ratings.jsonl:7: no pair has the id '0'"):
        rate_by_people(pairs, path)
    path.write_text(json.dumps({"id": shown[0]["id"], "choice": "left"}))
    with pytest.raises(
        DataError, match="ratings.jsonl:1: `choice` must be one of first, second, tie. Received: 'left'"
    ):
        rate_by_people(pairs, path)


def test_pairs_of_a_stage_keep_the_group_of_their_conversation():
    """Only a task's hash is handed on: of other prompts the opening turn decides what is held out together."""
    roles = ("user", "a"), ("assistant", "b"), ("user", "c")
    turns = [{"role": role, "content": content} for role, content in roles]
    prompts = [Prompt(turns, None, ""), Prompt("A!", None, "")]
    rollout = rollout_of([[2]] * 4, [[5], [6], [7], [8]], [True] * 4, list("wxyz"), [0, 0, 1, 1])
    verdicts = [Verdict(0, 1, 1.0), Verdict(2, 3, 1.0)]
    rows = preference_rows(verdicts, rollout, Prompts(prompts, [[2], [2]], 1, 0), None)
    pairs = [prompt_hashes(read_preference(Row(row, ""), {})) for row in rows]
    assert pairs == [prompt_hashes(prompt) for prompt in prompts] and pairs[0].group == pairs[1].group
