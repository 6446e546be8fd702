"""One policy optimization stage at temperature 0.7 with two updates a rollout, prompts and responses of many lengths:
what it sampled, charged, learned and measured, against the papers' equations in plain numpy."""

import itertools
import math

import numpy as np
import pytest
from algorithm_pages import undocumented
from policy_fixture import OPTIONS, EvenOrEnded, world_model
from policy_record import Recording, of_sampled, summed, tokens_of
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras import GemmaCausalLM
from gemma_keras.random import uniforms
from gemma_keras.text.chat import encode_prompt
from pipelines.stages.policy_optimization.drawing import prompt_batches
from pipelines.tasks import task

TEMPERATURE, CLIP_RANGE, KL_WEIGHT, PENALTY, K = 0.7, 0.5, 0.05, 0.25, 4
STEPS, UPDATES, LEARNING_RATE = 6, 2, 0.04
CHANGES = {
    "temperature": TEMPERATURE, "inner_updates": UPDATES, "clip_range": CLIP_RANGE, "kl_weight": KL_WEIGHT,
    "missing_stop_penalty": PENALTY, "schedule": "linear", "learning_rate": LEARNING_RATE, "steps": STEPS,
    # An epoch and a third of the prompts, four a step; the last micro-batch is filled up.
    "data": {**OPTIONS["data"], "size": 24}, "micro_batch_size": 6,
}  # fmt: skip
STEP_METRICS = {
    "step", "reward", "reward_std", "frac_reward_zero_std", "kl", "kl_sequence", "entropy", "policy_loss", "clip_ratio",
    "num_tokens", "completions/mean_length", "completions/max_length", "completions/clipped_ratio", "step_time",
    "completions/distinct_bigrams", "completions/equal_pairs",
    "learning_rate", "grad_norm", "ratio_deviation", "ratio_deviation_token", "skipped_updates",
    "sampling_log_prob_difference/mean", "sampling_log_prob_difference/max", "rewards/even/mean",
    "tokens_per_second", "sampling/tokens_per_second",
}  # fmt: skip
# Scoring and training are two compiled programs of one formula and differ by float32 rounding, which grows with |log
# pi|.
FIRST_ROUNDING, LATER_ROUNDING = 2e-6, 1e-4


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("inputs") / "sft", seed=9, scale=4.0, stop_scale=5.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory, sft):
    context = make_context(tmp_path_factory.mktemp("run"), "policy", inputs={"sft": sft})
    config = stage_config("policy_optimization", **{"from": "sft", "reward": "exact_answer", **OPTIONS, **CHANGES})
    return Recording(config, context)


@pytest.fixture(scope="module")
def dense(stage):
    """A rollout → log-probabilities of its rows under the policy that drew it, and under the tuned model."""
    start = stage.sampled[0].weights
    return lambda sampled: tuple(
        stage.of_rollout(weights, sampled.rollout, TEMPERATURE) for weights in (sampled.weights, start)
    )


def test_the_rollouts_are_such_that_a_broken_wire_shows(stage):
    first = stage.training()[0].rollout
    assert len(set(first.prompt_is_token.sum(axis=1))) > 1 and len(set(first.lengths)) >= 3
    assert 0 < first.finished.mean() < 1 and first.lengths.min() == 1
    last = stage.sampled[-1].rollout
    assert len(set(last.lengths)) >= 3 and 0 < last.finished.mean() < 1


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_each_token_is_drawn_at_the_temperature_by_a_number_of_its_own(stage, place):
    """Inverse transform, keyed by (seed, stage, step, prompt, sample): the number lies in the token's own part of the
    cumulative distribution. Evaluations draw the same numbers every time."""
    sampled = stage.sampled[place]
    assert sampled.step == ("evaluation", 1, 2, None, "evaluation")[place]
    rollout = sampled.rollout
    for row, policy in enumerate(stage.of_rollout(sampled.weights, rollout, TEMPERATURE)):
        response = rollout.response_list(row)
        sample = 0 if sampled.step == "evaluation" else row % K
        numbers = uniforms(11, "policy", sampled.step, int(rollout.prompt_index[row]), sample, shape=6)[: len(response)]
        upper = of_sampled(np.cumsum(np.exp(policy), axis=-1), response)
        lower = upper - np.exp(of_sampled(policy, response))
        assert (lower - 1e-5 <= numbers).all() and (numbers <= upper + 1e-5).all(), row
        is_stop = np.isin(response, stage.tokenizer.stop_token_ids)
        assert not is_stop[:-1].any() and is_stop[-1] == rollout.finished[row]
        assert rollout.finished[row] or len(response) == 6
        said, rest = np.split(rollout.log_probs[row], [len(response)])
        assert np.abs(said - of_sampled(policy, response)).max() < 1e-4 and not rest.any()


def test_what_is_evaluated_is_never_trained_on_and_an_epoch_has_its_own_order(stage):
    evaluated = [sampled.rollout.prompt_index.tolist() for sampled in stage.evaluation()]
    assert evaluated[0] == evaluated[1] == evaluated[2] and len(set(evaluated[0])) == stage.final["eval_prompts"] == 6
    trained = np.concatenate([sampled.rollout.prompt_index.reshape(4, K) for sampled in stage.training()])
    assert (trained == trained[:, :1]).all()  # the samples of a prompt stand together
    order, size = trained[:, 0].tolist(), stage.final["prompts"]
    assert not set(order) & set(evaluated[0])
    assert size == 18 and len(order) == 24 and len(set(order[:size])) == size  # no prompt twice, none left out
    assert order[size:] != order[: len(order) - size]


def test_epochs_are_permutations_without_a_gap_each_its_own(stage):
    rows = np.array([3, 5, 8, 9, 12, 13, 20])
    batches = list(itertools.islice(prompt_batches(rows, 5, stage.context), 13))
    assert [len(batch) for batch in batches] == [5] * 13
    epochs = [np.concatenate(batches)[start : start + 7].tolist() for start in range(0, 63, 7)]
    assert all(sorted(epoch) == rows.tolist() for epoch in epochs)
    assert len(set(map(tuple, epochs))) == len(epochs)


def test_the_reward_is_asked_about_each_response_with_its_own_prompt(stage):
    assert len(stage.rated) == len(stage.sampled)
    for prompts, rollout in stage.rated:
        for row, prompt in enumerate(prompts):
            assert encode_prompt(stage.tokenizer, prompt.prompt) == rollout.prompt_list(row)


@pytest.mark.parametrize("number", [0, 3])
def test_an_update_gets_the_rollout_with_its_log_probabilities_and_advantages(stage, dense, number):
    """R = r - weight * KL - penalty; a response's advantage is its return minus the mean of the prompt's others."""
    rollout = stage.training()[number].rollout
    policy, reference = dense(stage.training()[number])
    returns = EvenOrEnded().score([], rollout).total - PENALTY * ~rollout.finished
    returns = (returns - KL_WEIGHT * (summed(policy, rollout) - summed(reference, rollout))).reshape(-1, K)
    expected = returns - (returns.sum(axis=1, keepdims=True) - returns) / (K - 1)
    for updated in stage.updated[2 * number : 2 * number + 2]:
        assert len({batch["token_ids"].shape for batch in updated.batches}) == 1
        assert sorted(row[:2] for row in updated.rows()) == sorted(tokens_of(rollout))
        for prompt, response, old, advantage in updated.rows():
            row = tokens_of(rollout).index((prompt, response))  # of equal ones all is equal
            assert np.abs(old - of_sampled(policy[row], response)).max() < 1e-4
            assert advantage == pytest.approx(expected.reshape(-1)[row], abs=1e-4)


@pytest.mark.parametrize("number", [0, 7])
def test_the_gradient_is_that_of_the_loss_in_numpy(stage, number):
    """Of a first update, and of a second one with some of its ratios clipped."""
    updated, random = stage.updated[number], np.random.default_rng(0)
    assert (stage.loss(updated, TEMPERATURE, CLIP_RANGE)[1] > 0) == (number == 7)
    direction = {name: random.normal(size=values.shape) for name, values in updated.weights.items()}
    assert set(updated.gradient) == set(direction)
    slope = sum(float((updated.gradient[name] * values).sum()) for name, values in direction.items())
    assert abs(slope) > 0.1
    assert slope == pytest.approx(stage.slope(updated, direction, TEMPERATURE, CLIP_RANGE), rel=1e-3)


@pytest.mark.parametrize("number", [0, 3])
def test_the_figures_of_a_step(stage, dense, number):
    rollout, row = stage.training()[number].rollout, stage.steps[number]
    policy, reference = dense(stage.training()[number])
    updates = stage.updated[2 * number : 2 * number + 2]
    losses, clipped = zip(*(stage.loss(updated, TEMPERATURE, CLIP_RANGE) for updated in updates), strict=True)
    rewards = EvenOrEnded().score([], rollout).total
    kl = summed(policy, rollout) - summed(reference, rollout)
    seen = [batch["padding_mask"].sum() for updated in stage.updated[: 2 * number + 2] for batch in updated.batches]
    squares = [float((values.astype(np.float64) ** 2).sum()) for values in updates[-1].gradient.values()]
    expected = {
        "policy_loss": np.mean(losses),
        "clip_ratio": np.mean(clipped),
        "reward": rewards.mean(),
        "rewards/even/mean": rewards.mean(),
        "reward_std": rewards.std(ddof=1),
        "frac_reward_zero_std": np.mean([len(set(group)) == 1 for group in rewards.reshape(-1, K).tolist()]),
        "kl": kl.sum() / rollout.lengths.sum(),
        "kl_sequence": kl.mean(),
        "entropy": sum(float(-(np.exp(found) * found).sum()) for found in policy) / rollout.lengths.sum(),
        "completions/mean_length": rollout.lengths.mean(),
        "completions/max_length": rollout.lengths.max(),
        "completions/clipped_ratio": np.mean(~rollout.finished),
        "grad_norm": np.sqrt(sum(squares)),
        "num_tokens": sum(seen),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-4), name


def test_the_learning_rate_falls_to_zero_over_all_updates(stage):
    """Linear over steps * inner_updates; a step logs that of its last update."""
    expected = [LEARNING_RATE * (1 - (2 * step - 1) / (STEPS * UPDATES)) for step in range(1, STEPS + 1)]
    assert [row["learning_rate"] for row in stage.steps] == pytest.approx(expected)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_evaluation_measures_the_policy_as_it_is(stage, dense, number):
    """Its KL to the tuned model is the sum over the vocabulary at the temperature, a token and a response."""
    sampled, row = stage.evaluation()[number], stage.evaluations[number]
    rollout = sampled.rollout
    prompts = next(prompts for prompts, rated in stage.rated if rated is rollout)
    kl = [(np.exp(p) * (p - q)).sum() for p, q in zip(*dense(sampled), strict=True)]
    rewards = EvenOrEnded().score([], rollout).total
    gold = [
        task("small_world").gold_reward(prompt.item, text, bool(finished)).total
        for prompt, text, finished in zip(prompts, rollout.texts, rollout.finished, strict=True)
    ]
    expected = {
        "step": 3 * number,
        "eval_kl": sum(kl) / rollout.lengths.sum(),
        "eval_kl_sequence": np.mean(kl),
        "eval_reward": rewards.mean(),
        "eval_rewards/even/mean": rewards.mean(),
        "eval_gold": np.mean(gold),
        "eval_completions/mean_length": rollout.lengths.mean(),
        "eval_completions/clipped_ratio": np.mean(~rollout.finished),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-4), name
    assert row["eval_reward_ci95_low"] <= row["eval_reward"] <= row["eval_reward_ci95_high"]


def test_kl_is_zero_and_the_ratio_one_before_anything_was_learned(stage, backend):
    assert stage.evaluations[0]["eval_kl"] == 0 and stage.evaluations[0]["eval_kl_sequence"] == 0
    assert stage.steps[0]["kl"] == 0 and stage.steps[0]["kl_sequence"] == 0
    assert stage.steps[0]["ratio_deviation"] <= (0 if backend == "torch" else FIRST_ROUNDING)
    # The second pass is made in the first step and in the first after an evaluation, the fourth.
    scored = [row for row in stage.steps if row["step"] in (1, 4)]
    assert all(row["ratio_deviation"] <= (0 if backend == "torch" else LATER_ROUNDING) for row in scored)
    assert all(row["ratio_deviation"] <= LATER_ROUNDING for row in stage.steps)
    others = [row for row in stage.steps if row not in scored]
    assert all(row["sampling_log_prob_difference/mean"] == row["ratio_deviation_token"] <= 1e-5 for row in others)
    assert all(row["ratio_deviation_token"] <= row["ratio_deviation"] for row in stage.steps)
    assert all(row["sampling_log_prob_difference/max"] <= LATER_ROUNDING for row in stage.steps)
    assert stage.steps[-1]["kl_sequence"] != 0


def test_the_final_figures_are_those_of_the_evaluations_and_the_reward_rises(stage):
    first, last = stage.evaluations[0], stage.evaluations[-1]
    assert last["eval_reward"] > first["eval_reward"] + 0.1
    assert stage.final == {
        "reward_start": first["eval_reward"], "reward_end": last["eval_reward"], "gold_start": first["eval_gold"],
        "gold_end": last["eval_gold"], "gold_peak": max(row["eval_gold"] for row in stage.evaluations),
        "kl": last["eval_kl"], "kl_sequence": last["eval_kl_sequence"], "steps": STEPS,
        "reward_source": "even", "prompts": 18, "eval_prompts": 6, "dropped_prompts": 0, "skipped_updates": 0,
        "heldout_seen_before": 0, "tokens": stage.steps[-1]["num_tokens"],
        "ratio_deviation_token": max(row["ratio_deviation_token"] for row in stage.steps),
    }  # fmt: skip


def test_metrics_samples_and_the_model_are_all_there(stage, sft, repository):
    assert all(set(row) == STEP_METRICS for row in stage.steps)
    logged = {name for row in [*stage.steps, *stage.evaluations] for name in row} - {"step"}
    assert undocumented(repository / "docs/algorithms/rloo.md", logged) == set()
    assert all(row["sampling/tokens_per_second"] > 0 for row in stage.evaluations)
    rows = [*stage.steps, *stage.evaluations]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    samples = read_jsonl(stage.context.output / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [0] * 6 + [3] * 6 + [6] * 6
    assert {"prompt", "completion", "reward", "gold"} <= set(samples[0])
    saved = GemmaCausalLM.from_preset(stage.context.output / "model")
    for name, values in saved.backbone.named_arrays():
        assert np.array_equal(values, stage.sampled[-1].weights[name]), name
    assert np.abs(stage.sampled[-1].weights["embedding"] - stage.sampled[0].weights["embedding"]).max() > 1e-3
