"""PPO: values of prefixes, advantages and both losses against plain numpy, and a stage that learns."""

import dataclasses

import numpy as np
import pytest
from keras import ops
from policy_fixture import OPTIONS, EvenIds, dense_log_probs, rollout_of, world_model, world_reward_model
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras import GemmaCausalLM, GemmaRewardModel
from pipelines.sampling.rollout import ResponseScorer
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.policy_optimization import values as value_models
from pipelines.stages.policy_optimization.methods.base import Scored
from pipelines.stages.policy_optimization.methods.registry import method_of
from pipelines.stages.policy_optimization.updates import update_batches
from pipelines.stages.policy_optimization.values import ValueLearner, value_learner
from pipelines.training.adapters import adapter_figures
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

TEMPERATURE, KL_WEIGHT, ENTROPY, PENALTY, CLIP, DISCOUNT, TRACE = 0.7, 0.3, 0.05, 0.25, 0.2, 0.9, 0.8
PROMPTS = [[2, 90, 91], [2, 90, 91], [2, 100]]
RESPONSES = [[50, 60, 55, 70], [51, 61], [1]]
REWARDS = np.array([1.5, -0.5, 0.3])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "sft": world_model(folder / "sft", seed=9, scale=4.0, stop_scale=5.0),
        "reward": world_reward_model(folder / "reward", mean=0.4, std=2.0),
    }


@pytest.fixture(scope="module")
def rollout():
    return rollout_of(PROMPTS, RESPONSES, [False, False, True], ["", "", ""])


def options(**changes):
    algorithm = {"name": "ppo", "discount": DISCOUNT, "trace": TRACE, "value_learning_rate": 0.02}
    given = {
        **OPTIONS, "from": "sft", "reward": "reward", "algorithm": algorithm, "kl_weight": KL_WEIGHT,
        "entropy_weight": ENTROPY, "missing_stop_penalty": PENALTY, "length_penalty": 0.125,
        "temperature": TEMPERATURE, "inner_updates": 2, "clip_range": CLIP, "schedule": "constant", **changes,
    }  # fmt: skip
    return stage_config("policy_optimization", **given)


def prefix_values(rollout):
    """Slots of 4 tokens a response, numbers by hand."""
    return np.where(rollout.response_mask, np.float32([[0.2, -0.1, 0.5, 0.3], [0.9, 0.4, 0, 0], [-0.2, 0, 0, 0]]), 0)


def test_a_value_is_the_normalized_score_of_what_stands_before_the_token(tmp_path, inputs, rollout):
    learner = value_learner(options(), make_context(tmp_path, "policy", inputs=inputs), None, 0.2, 4)
    found = learner.values(rollout)
    model = GemmaRewardModel.from_preset(inputs["reward"] / "model")
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        for place in range(len(response)):
            ids = prompt + response[:place]
            is_token = np.arange(8)[None] < len(ids)
            raw = model({"token_ids": np.array([ids + [0] * (8 - len(ids))]), "padding_mask": is_token})
            score = (float(ops.convert_to_numpy(raw)[0]) - 0.4) / 2.0
            assert found[row, place] == pytest.approx(score, abs=1e-5)
        assert not found[row, len(response) :].any()


def test_without_a_reward_model_values_start_at_nothing(tmp_path, inputs, rollout):
    config = options(reward="exact_answer", data={**OPTIONS["data"]}, gold=None)
    learner = value_learner(config, make_context(tmp_path, "policy", inputs=inputs), None, 0.2, 4)
    assert not learner.values(rollout).any()


@pytest.mark.once
def test_another_reward_model_may_be_named(tmp_path, inputs, rollout):
    other = {**inputs, "judge": world_reward_model(tmp_path / "judge", seed=8)}
    config = options(algorithm={"name": "ppo", "value_model": "judge"})
    context = make_context(tmp_path, "policy", inputs=other)
    named = value_learner(config, context, None, 0.2, 4).values(rollout)
    assert np.abs(named - value_learner(options(), context, None, 0.2, 4).values(rollout)).max() > 1e-3


@pytest.mark.once
def test_values_are_kept_and_trained_as_the_options_say(tmp_path, inputs, monkeypatch):
    """6 steps of 2 updates each, and a rate of their own or the policy's."""
    monkeypatch.setattr(value_models, "ValueLearner", lambda *arguments: arguments)
    config, context = options(dtype="mixed_bfloat16", weight_decay=0.1), make_context(tmp_path, "policy", inputs=inputs)
    model, settings, updates, clip_range, size = value_learner(config, context, 0.02, 0.3, 4)
    assert model.dtype_policy.name == "mixed_bfloat16" and model.backbone.dtype_policy.name == "mixed_bfloat16"
    assert (updates, clip_range, size) == (12, 0.3, 4)
    expected = OptimizerSettings(0.02, "constant", warmup_fraction=0.0, weight_decay=0.1)
    assert settings == expected
    with_adapter = options(lora={"rank": 2})
    model, settings, _, clip_range, _ = value_learner(with_adapter, context, None, None, 4)
    assert settings == dataclasses.replace(expected, learning_rate=0.1, weight_decay=0.0) and clip_range is None
    assert 0 < adapter_figures(model)["trainable_parameters"] < model.count_params() / 4


@pytest.fixture(scope="module")
def scored(inputs, rollout):
    policy = GemmaCausalLM.from_preset(inputs["sft"] / "model")
    old, _ = ResponseScorer(policy, TEMPERATURE, 4)(rollout)
    random = np.random.default_rng(4)
    mask = rollout.response_mask
    # Old log-probabilities that the policy has moved away from, by more and by less than the clip.
    old = np.where(mask, old + random.normal(0, 0.3, old.shape), 0).astype(np.float32)
    reference = np.where(mask, old + random.normal(0, 0.5, old.shape), 0).astype(np.float32)
    return policy, Scored(rollout, REWARDS, old, reference, (old - reference).sum(axis=1), KL_WEIGHT)


class ByHand:
    """Values that are given."""

    def values(self, rollout):
        return prefix_values(rollout).astype(np.float32)


def arrays_of(scored, **changes):
    method = method_of(options(**changes).algorithm)
    method.learner = ByHand()
    return method, method.batch_arrays(scored, options(**changes))


def by_numpy(scored):
    """Advantages and returns, token after token from the last one on."""
    advantages, returns = np.zeros((2, *scored.old_log_probs.shape))
    values = prefix_values(scored.rollout)
    for row, response in enumerate(RESPONSES):
        after = 0.0
        for place in reversed(range(len(response))):
            earned = -KL_WEIGHT * (scored.old_log_probs[row, place] - scored.reference_log_probs[row, place])
            earned -= ENTROPY * scored.old_log_probs[row, place]
            if place == len(response) - 1:
                earned += REWARDS[row] - PENALTY * (row != 2) - 0.125 * len(response)
            value = values[row, place + 1] if place + 1 < len(response) else 0.0
            after = earned + DISCOUNT * value - values[row, place] + DISCOUNT * TRACE * after
            advantages[row, place], returns[row, place] = after, after + values[row, place]
    return advantages, returns


def test_advantages_and_returns_are_those_in_numpy(scored):
    _, scored = scored
    advantages, returns = by_numpy(scored)
    plain = {"name": "ppo", "discount": DISCOUNT, "trace": TRACE, "whiten": False}
    method, arrays = arrays_of(scored, algorithm=plain)
    assert np.abs(arrays["advantages"] - advantages).max() < 1e-6
    assert np.abs(arrays["returns"] - returns).max() < 1e-6
    assert method.of_rollout["values/mean"] == pytest.approx(np.mean([0.2, -0.1, 0.5, 0.3, 0.9, 0.4, -0.2]))
    mask = scored.rollout.response_mask
    _, white = arrays_of(scored)
    expected = (advantages[mask] - advantages[mask].mean()) / advantages[mask].std()
    assert np.abs(white["advantages"][mask] - expected).max() < 1e-5
    assert np.abs(white["returns"] - returns).max() < 1e-6


def test_the_policy_loss_is_that_in_numpy(scored):
    """A mean over tokens, of one micro-batch and of two; some ratios clipped at either end."""
    policy, scored = scored
    method, arrays = arrays_of(scored)
    rollout, mask = scored.rollout, scored.rollout.response_mask
    now = np.zeros(mask.shape)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        dense = dense_log_probs(policy, prompt, response, TEMPERATURE, width=16)
        now[row, : len(response)] = dense[np.arange(len(response)), response]
    ratio = np.exp(now - scored.old_log_probs)
    gains = np.minimum(ratio * arrays["advantages"], np.clip(ratio, 1 - CLIP, 1 + CLIP) * arrays["advantages"])
    clipped = mask & np.where(arrays["advantages"] < 0, ratio < 1 - CLIP, ratio > 1 + CLIP)
    assert 0 < clipped.sum() < mask.sum()
    for size in (3, 2):
        trainer = Trainer(
            policy, method.loss(options()), OptimizerSettings(1e-9), 1, count_units=method.count_units,
            summarize=method.figures,
        )  # fmt: skip
        batches = list(update_batches(rollout, {"old_log_probs": scored.old_log_probs, **arrays}, size))
        metrics = trainer.update(batches)
        assert metrics["loss"] == pytest.approx(-gains[mask].mean(), abs=1e-5)
        assert metrics["clip_ratio"] == pytest.approx(clipped.sum() / mask.sum())


def test_values_learn_what_is_returned(inputs, rollout):
    model = GemmaRewardModel.from_preset(inputs["reward"] / "model")
    learner = ValueLearner(model, OptimizerSettings(0.02, schedule="constant", warmup_fraction=0.0), 20, None, 4)
    returns = np.where(rollout.response_mask, np.float32([[1, 0.5, -1, 2], [0, 1, 0, 0], [-1, 0, 0, 0]]), 0)
    arrays = {
        "old_log_probs": returns,
        "advantages": returns,
        "returns": returns,
        "old_values": learner.values(rollout),
    }
    batches = list(update_batches(rollout, arrays, 4))
    mask = rollout.response_mask
    before = np.mean((learner.values(rollout) - returns)[mask] ** 2) / 2
    losses = [learner.update(batches)["value_loss"] for _ in range(20)]
    assert losses[0] == pytest.approx(before, rel=1e-4) and losses[-1] < 0.2 * losses[0]


@pytest.mark.once
def test_a_stage_learns_by_it(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(policy_optimization, "make_rater", lambda *arguments: EvenIds())
    context = make_context(tmp_path, "policy", inputs=inputs)
    final = policy_optimization.run(
        options(kl_weight=0.01, entropy_weight=0.0, learning_rate=0.05, missing_stop_penalty=0.0, length_penalty=0.0),
        context,
    )
    rows = [row for row in read_jsonl(context.output / "metrics.jsonl") if "value_loss" in row]
    assert len(rows) == 6 and all(set(method_of(options().algorithm).metrics) <= set(row) for row in rows)
    assert final["reward_end"] > final["reward_start"] + 0.1
    assert rows[-1]["value_loss"] < rows[0]["value_loss"]
    assert rows[0]["ratio_deviation"] < 1e-4
