"""GRPO in a stage: what each switch changes of the rewards, the batches and the figures, and that all of them run."""

import math

import numpy as np
import pytest
from keras import ops
from policy_fixture import OPTIONS, EvenOrEnded, prompts_of, rollout_of, world_model
from policy_record import Recording, tokens_of
from stage_fixture import make_context, stage_config

from gemma_keras.backends import to_host
from pipelines.scoring.raters import Rater, Scores
from pipelines.stages.policy_optimization.drawing import Drawing
from pipelines.stages.policy_optimization.methods.base import Scored
from pipelines.stages.policy_optimization.methods.registry import METHODS, method_of
from pipelines.stages.policy_optimization.token_loss import TokenLoss, count_units, token_figures
from pipelines.stages.policy_optimization.updates import update_batches


def config(algorithm=None, **options):
    asked = {"from": "sft", "reward": "exact_answer", **OPTIONS, **options, "algorithm": {"name": "grpo", **algorithm}}
    return stage_config("policy_optimization", **asked)


ROLLOUT = rollout_of(
    [[2, 90]] * 4, [[50, 1], [51, 52, 53, 54], [55, 56, 57], [1]], [True, False, False, True], [""] * 4, [0, 0, 1, 1]
)
SCORED = Scored(ROLLOUT, np.array([1.0, 2, 3, 5]), None, np.zeros((4, 4), np.float32), np.array([2.0, 0, 4, 0]), 0.5)


def test_the_reward_is_charged_with_kl_stop_and_length_as_asked():
    """KL 2, 0, 4, 0 at weight 1/2; no stop at 1/4; lengths 2, 4, 3, 1 of 4, the last two of which are charged."""
    settings = {"samples_per_prompt": 2, "kl_weight": 0.5, "missing_stop_penalty": 0.25, "max_new_tokens": 4}
    for options, expected in (
        ({}, [0, 1.75, 0.75, 5]),
        ({"kl_in": "loss"}, [1, 1.75, 2.75, 5]),
        ({"kl_in": "loss", "overlong_penalty": 2}, [1, 0.75, 2.25, 5]),
    ):
        asked = config(options, **settings)
        method = method_of(asked.algorithm)
        assert method.returns(SCORED, asked).tolist() == expected
        found = method.batch_arrays(SCORED, asked)
        groups = np.array(expected).reshape(2, 2)
        half = (groups[:, 1] - groups[:, 0]) / 2
        normal = half / (np.abs(half) * 2**0.5 + 1e-4)
        assert found["advantages"] == pytest.approx(np.stack([-normal, normal], axis=1).reshape(-1), abs=1e-6)
        assert ("reference_log_probs" in found) == ("kl_in" in options)
        plain = method_of(config({**options, "standard_deviation": False}, **settings).algorithm)
        assert plain.batch_arrays(SCORED, asked)["advantages"].tolist() == [-half[0], half[0], -half[1], half[1]]


def test_each_token_may_be_charged():
    asked = config({"kl_in": "loss"}, samples_per_prompt=2, length_penalty=0.5, missing_stop_penalty=0.25)
    assert method_of(asked.algorithm).returns(SCORED, asked).tolist() == [1 - 1, 1.75 - 2, 2.75 - 1.5, 5 - 0.5]


def test_options_reach_the_loss():
    everything = {
        "aggregation": "constant", "clip_range_high": 0.28, "ratio": "sequence", "kl_in": "loss", "redraws": 3,
        "drop_equal_groups": True,
    }  # fmt: skip
    asked = config(everything, temperature=0.7, inner_updates=2, clip_range=0.1, kl_weight=0.3)
    method = method_of(asked.algorithm)
    assert method.loss(asked) == TokenLoss(0.7, 0.1, 6, "constant", 0.28, "sequence", 0.3)
    assert method.most_redraws == 3
    plain = config({}, inner_updates=1)
    assert method_of(plain.algorithm).loss(plain) == TokenLoss(1.0, None, 6, "tokens", None, "token", 0.0)
    assert METHODS["grpo"]().most_redraws == 0


def test_what_the_loss_is_a_mean_over():
    batch = {"response_mask": np.array([[True, True], [True, False], [False, False]])}
    assert [count_units(batch, how) for how in ("tokens", "responses", "constant")] == [3, 2, 2]
    assert METHODS["grpo"]().count_units(batch) == 3


def test_a_prompt_that_does_not_count_bears_no_loss():
    arrays = {"old_log_probs": np.full((4, 4), -1, np.float32), "advantages": np.float32([1, 2, 3, 4])}
    (batch,) = update_batches(ROLLOUT, arrays, 4, np.array([True, True, False, False]))
    assert batch["response_mask"].sum(axis=1).tolist() == [2, 4, 0, 0]
    assert batch["padding_mask"].sum(axis=1).tolist() == [4, 6, 5, 3]
    assert ROLLOUT.lengths.tolist() == [2, 4, 3, 1]


def model_of(log_probs):
    """A model whose sampled tokens have these log-probabilities."""

    class Model:
        def score(self, batch, temperature):
            return ops.convert_to_tensor(log_probs)

        def weighted_score(self, batch, weights, temperature):
            return ops.sum(ops.convert_to_tensor(log_probs) * weights), ops.convert_to_tensor(log_probs)

    return Model()


@pytest.mark.parametrize(("ratio", "expected"), [("token", (1 / 5, 2 / 5)), ("sequence", (0, 1 / 2))])
def test_clipped_shares_by_hand(ratio, expected):
    """Of five tokens in two responses: two are too likely and good, one too unlikely and bad. The geometric means are
    1.26 and 0.86."""
    mask = np.array([[True] * 3, [True, True, False], [False] * 3])
    ratios = np.array([[1.5, 1.45, 0.92], [0.6, 1.23, 9], [9, 9, 9]], np.float32)
    old = np.full((3, 3), -2, np.float32)
    batch = {"response_mask": mask, "advantages": np.float32([1, -1, 5]), "old_log_probs": old}
    batch = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
    _, aux = TokenLoss(1.0, 0.2, 3, clip_range_high=0.22, ratio_of=ratio)(model_of(old + np.log(ratios)), batch)
    figures = token_figures({name: to_host(values) for name, values in aux.items()})
    assert (figures["clip_ratio/low_mean"], figures["clip_ratio/high_mean"]) == pytest.approx(expected)
    assert figures["clip_ratio"] == pytest.approx(sum(expected))
    assert figures["ratio_deviation"] == pytest.approx(1.5 * 1.45 * 0.92 - 1, abs=1e-5)


def test_clipped_shares_of_many_tokens():
    """More digits than float32 has."""
    arrays = {"ratio": np.ones(2), "farthest_deviation": np.ones(2), "token_deviation": np.ones(2)}
    counts = {"clipped_low": [2**24, 1], "clipped_high": [0, 0], "clippable": [2**25, 1]}
    arrays |= {"tokens": np.array([1, 1])} | {name: np.float32(found) for name, found in counts.items()}
    assert token_figures(arrays)["clip_ratio/low_mean"] == (2**24 + 1) / (2**25 + 1)


def test_a_first_update_has_the_value_of_the_formula():
    """A third of 1 + 1 - 2 at ratio 1, over its three tokens, and k3 of a half nat each, in the gradient's own way."""
    mask = np.array([[True, True], [True, False]])
    old = np.float32([[-1, -2], [-3, -9]])
    batch = {"response_mask": mask, "advantages": np.float32([1, -2]), "old_log_probs": old}
    batch |= {"reference_log_probs": old - np.float32(0.5)}
    batch = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
    for kl_weight in (0.0, 2.0):
        expected = -(1 + 1 - 2) + kl_weight * 3 * (math.exp(-0.5) - 1 + 0.5)
        loss, aux = TokenLoss(1.0, None, 2, kl_weight=kl_weight)(model_of(old), batch)
        assert float(loss) == pytest.approx(expected, abs=1e-6) and "clippable" not in aux


class Listed(Rater):
    """A reward that is the first id of each response."""

    name = source = "listed"

    def score(self, prompts, rollout):
        first = rollout.response_ids[:, 0].astype(np.float64)
        assert [prompt.prompt for prompt in prompts] == [f"prompt {i}" for i in rollout.prompt_index]
        return Scores(first, {"first": first})


class Dealt:
    """Deals rollouts of two responses a prompt; what each was asked is kept."""

    def __init__(self, *rewards):
        self.rewards, self.asked = list(rewards), []

    def sample(self, prompts, rows, samples_per_prompt, step):
        self.asked.append((rows.tolist(), step))
        ids = [[reward] for pair in self.rewards.pop(0) for reward in pair]
        index = np.repeat(rows, samples_per_prompt)
        texts = [f"{row} says {one[0]}" for row, one in zip(index, ids, strict=True)]
        return rollout_of([[2, 90]] * len(ids), ids, [True] * len(ids), texts, index)


def drawn_of(dealt, **options):
    drawing = Drawing(dealt, prompts_of([[2, 90]] * 9), Listed(), method_of(config(options).algorithm), 2)
    return drawing.draw(iter([np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6, 7, 8])]), 4)


def test_prompts_without_a_difference_make_room_for_others():
    """Of the first rollout one counts, of the second one: one place stays, and nothing is learned from it."""
    dealt = Dealt([(5, 5), (6, 7), (8, 8)], [(9, 9), (4, 3), (2, 2)])
    drawn = drawn_of(dealt, drop_equal_groups=True, redraws=1)
    assert dealt.asked == [([0, 1, 2], 4), ([3, 4, 5], "4, redraw 1")]
    assert drawn.rollout.prompt_index.tolist() == [4, 4, 1, 1, 2, 2]
    assert drawn.scores.total.tolist() == drawn.scores.parts["first"].tolist() == [4, 3, 6, 7, 8, 8]
    assert drawn.rollout.texts[1:4] == ["4 says 3", "1 says 6", "1 says 7"]
    assert drawn.counts.tolist() == [True] * 4 + [False] * 2
    assert drawn.figures == {"dropped_groups": pytest.approx(4 / 6), "redraws": 1}


def test_drawing_again_ends_when_all_places_are_filled():
    """What is left over of the second rollout is not learned from."""
    dealt = Dealt([(5, 5), (6, 7), (8, 8)], [(1, 9), (4, 3), (2, 6)], [])
    drawn = drawn_of(dealt, drop_equal_groups=True, redraws=5)
    assert drawn.rollout.prompt_index.tolist() == [3, 3, 1, 1, 4, 4] and drawn.counts.all()
    assert drawn.figures == {"dropped_groups": pytest.approx(2 / 6), "redraws": 1}


def test_without_drawing_again_places_stay_empty_and_without_a_difference_anywhere_all_count():
    drawn = drawn_of(Dealt([(5, 5), (6, 7), (8, 8)]), drop_equal_groups=True)
    assert drawn.counts.tolist() == [False, False, True, True, False, False]
    assert drawn.figures == {"dropped_groups": pytest.approx(2 / 3), "redraws": 0}
    equal = [(5, 5), (6, 6), (8, 8)]
    drawn = drawn_of(Dealt(equal, equal), drop_equal_groups=True, redraws=1)
    assert drawn.counts.all() and drawn.figures == {"dropped_groups": 1, "redraws": 1}
    drawn = drawn_of(Dealt(equal))
    assert drawn.counts.all() and drawn.figures == {"dropped_groups": 0, "redraws": 0}


DAPO = {"clip_range_high": 0.28, "drop_equal_groups": True, "redraws": 1, "overlong_penalty": 3, "kl_in": "loss"}
DR_GRPO = {"standard_deviation": False, "aggregation": "constant"}
GSPO = {"aggregation": "responses", "ratio": "sequence"}


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("inputs") / "sft", seed=9, scale=4.0, stop_scale=5.0)


def differing(stage):
    """The prompts, as ids, of which some rollout has responses of two rewards."""
    found = set()
    for sampled in stage.training():
        rewards = EvenOrEnded().score([], sampled.rollout).total
        found |= {
            tuple(sampled.rollout.prompt_list(row))
            for row in range(0, len(rewards), 2)
            if rewards[row] != rewards[row + 1]
        }
    return found


@pytest.mark.once
@pytest.mark.parametrize(("options", "inner_updates"), [(DAPO, 2), (DR_GRPO, 1), (GSPO, 2)])
def test_a_stage_runs(tmp_path, sft, options, inner_updates):
    asked = config(options, inner_updates=inner_updates, steps=2, eval_every=0, samples_per_prompt=2, clip_range=0.01)
    stage = Recording(asked, make_context(tmp_path, "policy", inputs={"sft": sft}))
    assert len(stage.steps) == 2 and stage.final["steps"] == 2
    for number, row in enumerate(stage.steps):
        assert set(METHODS["grpo"].metrics) <= set(row) and all(math.isfinite(value) for value in row.values())
        assert row["ratio_deviation_token"] < 1e-4
        assert (row["clip_ratio"] > 0) == (inner_updates > 1)
        learned = stage.updated[number * inner_updates]
        assert len(learned.rows()) <= 8 and any(np.abs(values).max() > 0 for values in learned.gradient.values())
        if "drop_equal_groups" not in options:
            assert len(learned.rows()) == 8 and row["dropped_groups"] == 0
            continue
        assert len(learned.rows()) == 8 or row["redraws"] == 1
        assert {tuple(prompt) for prompt, *_ in learned.rows()} <= differing(stage)
    assert stage.final["reward_source"] == "even"
    assert all(len(tokens_of(sampled.rollout)) == 8 for sampled in stage.training())
