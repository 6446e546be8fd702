"""Parts of policy optimization: what an update does, what a return is charged, and what rewards refuse."""

from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops
from policy_fixture import OPTIONS, one_update, prompts_of, rollout_of, world_model, world_reward_model
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras import GemmaCausalLM, GemmaRewardModel
from gemma_keras.backends import to_host
from pipelines.algorithms.policy_losses import reinforce_loss
from pipelines.host.errors import ConfigError, DataError
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.scoring.raters import (
    FunctionRater,
    Rater,
    RaterSettings,
    RewardModelRater,
    Scores,
    WeightedRater,
    make_rater,
)
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.policy_optimization.drawing import Drawn
from pipelines.stages.policy_optimization.methods.registry import METHODS
from pipelines.stages.policy_optimization.monitor import PolicyEvaluation
from pipelines.stages.policy_optimization.updates import (
    policy_loss,
    ratio_figures,
    rollout_figures,
    sampling_figures,
    update_batches,
)


def config(**options):
    return stage_config("policy_optimization", **{"from": "sft", "reward": "reward", **OPTIONS, **options})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "sft": world_model(folder / "sft", scale=4.0),
        "reward": world_reward_model(folder / "reward", mean=0.1, std=0.5),
    }


@pytest.fixture(scope="module")
def updates(inputs):
    """`one_update` with all rows in one micro-batch, and with the clipped ratio in two micro-batches of which one is
    filled up."""
    variants = {"whole": (3, None), "clipped_parts": (2, 0.2)}
    models = {name: GemmaCausalLM.from_preset(inputs["sft"] / "model") for name in variants}
    return {name: one_update(models[name], [1.0, -2.0, 0.5], *variant) for name, variant in variants.items()}


def test_a_good_response_becomes_likelier_and_a_bad_one_less_likely(updates):
    before, after, metrics = updates["whole"]
    assert after[0] > before[0] + 1e-3 and after[1] < before[1] - 1e-3
    assert metrics["loss"] == pytest.approx(-(before[0] - 2 * before[1] + 0.5 * before[2]) / 3, rel=1e-5)


def test_micro_batches_fill_rows_and_the_clip_change_nothing_at_first(updates):
    """At ratio 1 the clipped loss is minus the mean advantage, and its gradient that of REINFORCE."""
    _, whole, metrics = updates["whole"]
    _, parts, clipped_metrics = updates["clipped_parts"]
    assert clipped_metrics["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-5)
    assert np.abs(parts - whole).max() < 1e-4
    assert clipped_metrics["loss"] == pytest.approx(0.5 / 3, abs=1e-6)
    assert clipped_metrics["clip_ratio"] == 0
    for found in (metrics, clipped_metrics):
        assert found["ratio_deviation"] <= 1e-5 and found["ratio_deviation_token"] <= 1e-5


def test_half_precision_learns_from_the_log_probs_that_it_scored(inputs):
    """Where XLA was free to leave roundings out, this was 0.004 a token on JAX: other ones in each program."""
    model = GemmaCausalLM.from_preset(inputs["sft"] / "model", dtype="mixed_bfloat16")
    before, _, metrics = one_update(model, [1.0, -2.0, 0.5], 3)
    assert before.max() < -1
    assert metrics["ratio_deviation_token"] < 1e-4


def model_of(log_probs):
    """A model whose sampled tokens have these log-probabilities."""
    found = ops.convert_to_tensor(log_probs)

    class Model:
        def score(self, batch, temperature):
            return found

        def weighted_score(self, batch, weights, temperature):
            return ops.sum(found * weights), found

    return Model()


def test_without_a_clip_the_loss_is_that_of_reinforce():
    """-(2 * (-1 - 3) - 0.5 * -4) by hand; the third row only fills a shape up."""
    log_probs = np.float32([[-1, -3, -9], [-4, -9, -9], [-9, -9, -9]])
    mask = np.array([[True, True, False], [True, False, False], [False] * 3])
    advantages = np.float32([2.0, -0.5, 7.0])
    batch = {"response_mask": mask, "advantages": advantages, "old_log_probs": log_probs}
    loss, _ = policy_loss(1.0, None)(model_of(log_probs), {k: ops.convert_to_tensor(v) for k, v in batch.items()})
    assert float(loss) == float(reinforce_loss(log_probs, advantages, mask, response_count=1)) == 6.0


@pytest.mark.parametrize("clip_range", [None, 0.2])
def test_deviations_by_hand(clip_range):
    """Three sampled tokens whose probabilities went up by 3 %, down by 1 %, and not at all; what was not sampled counts
    for nothing."""
    mask = np.array([[True, True, False], [True, False, False]])
    old = np.float32([[-1.0, -2.0, -1.0], [-3.0, -4.0, -1.0]])
    new = old + np.log(np.float32([[1.03, 0.99, 7.0], [1.0, 50.0, 7.0]]))
    batch = {"response_mask": mask, "advantages": np.float32([1, 1]), "old_log_probs": old}
    batch = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
    _, aux = policy_loss(1.0, clip_range)(model_of(new), batch)
    names = ("ratio", "token_deviation", "farthest_deviation", "tokens")
    figures = ratio_figures({name: to_host(aux[name]) for name in names})
    assert figures["ratio_deviation"] == pytest.approx(1.03 * 0.99 - 1, abs=1e-6)
    assert figures["ratio_deviation_token"] == pytest.approx((0.03 + 0.01 + 0) / 3, abs=1e-6)
    assert figures["ratio_deviation_farthest_token"] == pytest.approx(0.03, abs=1e-6)
    assert to_host(aux["tokens"]).tolist() == [2, 1]
    many = {"ratio": np.ones(1), "farthest_deviation": np.ones(1), "tokens": np.array([2])}
    many["token_deviation"] = np.float32([2**24, 1])
    assert ratio_figures(many)["ratio_deviation_token"] == (2**24 + 1) / 2  # more digits than float32 has


def test_the_samplers_log_probs_are_held_against_the_scorers():
    rollout = rollout_of([[2], [2]], [[5, 6], [7]], [False, True], ["", ""], log_probs=[[-1.0, -2.5], [-3.0, 0.0]])
    first_update = {"ratio_deviation_token": 2e-6, "ratio_deviation_farthest_token": 3e-6}
    figures = sampling_figures(rollout, np.float32([[-1.25, -2.5], [-2.5, -9.0]]), first_update)
    assert figures == {"sampling_log_prob_difference/mean": 0.25, "sampling_log_prob_difference/max": 0.5}
    # The sampler's own need no second pass: the first update has seen them.
    figures = sampling_figures(rollout, rollout.log_probs, first_update)
    assert figures == {"sampling_log_prob_difference/mean": 2e-6, "sampling_log_prob_difference/max": 3e-6}
    far = rollout_of([[2]], [[5, 6]], [True], [""], log_probs=[[-(2.0**24), -1.0]])
    # Their sum has more digits than float32.
    assert sampling_figures(far, np.zeros((1, 2), np.float32), {})["sampling_log_prob_difference/mean"] == 2**23 + 0.5


class FixedRater(Rater):
    """Scores by hand."""

    name = source = "fixed"

    def __init__(self, total):
        self.total = np.asarray(total, np.float64)

    def score(self, prompts, rollout):
        return Scores(self.total, {})


class IdleTrainer:
    """Learns nothing."""

    def update(self, batches):
        names = (
            "loss", "ratio_deviation", "ratio_deviation_token", "learning_rate", "grad_norm", "num_tokens",
            "skipped_updates", "step_time",
        )  # fmt: skip
        return dict.fromkeys(names, 0.0)


def test_the_kl_and_the_missing_stop_are_charged_to_the_reward(monkeypatch):
    """R = r - weight * KL - penalty, seen by what the baseline is handed; the metric `reward` is r."""
    seen = []
    method = METHODS["rloo"]()
    monkeypatch.setattr(
        method, "advantages", lambda rewards: seen.append(rewards) or np.zeros(rewards.size, np.float32)
    )
    rollout = rollout_of([[2, 90]] * 2, [[50, 1], [51, 52]], [True, False], ["", ""], [0, 0])
    players = policy_optimization.Players(
        drawing=None,
        policy_scorer=lambda rollout: (np.float32([[-1, -2], [-3, -4]]), np.ones((2, 2))),
        reference=ReferencePolicy(None),
        reference_scorer=lambda rollout: (np.float32([[-2, -2], [-3, -6]]), None),
        method=method,
        trainer=IdleTrainer(),
        kl_weight=0.5,
    )
    settings = config(samples_per_prompt=2, kl_weight=0.5, missing_stop_penalty=0.25)
    drawn = Drawn(rollout, FixedRater([5, 7]).score([], rollout), np.ones(2, bool), {})
    metrics = policy_optimization._update(players, drawn, settings)
    assert seen[0].tolist() == [[5 - 0.5 * 1, 7 - 0.5 * 2 - 0.25]]
    assert (metrics["reward"], metrics["kl_sequence"], metrics["kl"]) == (6.0, 1.5, 0.75)
    assert "kl_weight" not in metrics and players.kl_weight == 0.5
    # Cut to 6, then 0.1 for each nat of surprise, 3 and 7; the weight was 0.5 and goes down, as 1.5 nats are too few.
    settings = config(samples_per_prompt=2, kl_weight=0.5, kl_target=2.0, entropy_weight=0.1, reward_clip=6.0)
    metrics = policy_optimization._update(players, drawn, settings)
    assert seen[1] == pytest.approx(np.array([[5 - 0.5 + 0.3, 6 - 1 + 0.7]]))
    assert metrics["kl_weight"] == 0.5 and players.kl_weight == pytest.approx(0.5 * 0.98)
    assert metrics["reward"] == 6.0


def test_a_run_warns_once_where_ratios_are_off_before_anything_was_learned(monkeypatch, tmp_path, capsys):
    deviations = iter([0.019, 0.031, 0.027, 0.04])
    evaluation = type("Evaluation", (), {"measure": lambda self, step: {"eval_reward": 0.0}})()
    players = SimpleNamespace(
        method=METHODS["rloo"](),
        rollout_copy=None,
        drawing=SimpleNamespace(draw=lambda *arguments: SimpleNamespace(rollout=rollout, figures={"redraws": 0.0})),
    )
    rollout = rollout_of([[2]], [[5]], [True], [""])
    monkeypatch.setattr(policy_optimization, "_update", lambda *arguments: {"ratio_deviation_token": next(deviations)})
    context = make_context(tmp_path, "policy", inputs={})
    context.quiet = False
    _, found = policy_optimization._train(players, evaluation, np.arange(4), config(steps=4), context, None)
    assert found == {"steps": 4, "ratio_deviation_token": 0.04}
    (warning,) = context.warnings
    assert warning.startswith("step 2: ") and "0.031 from 1 in the mean, over 0.02" in warning
    assert "dtype: float32" in warning and capsys.readouterr().err.count(f"policy: {warning}") == 1


def test_a_row_that_fills_a_micro_batch_up_counts_nothing_and_holds_one_token():
    """One, since attention over no key at all is 0/0."""
    rollout = rollout_of([[2, 90], [2, 91, 92], [2, 93]], [[50, 1], [51], [52, 53]], [True, False, False], [""] * 3)
    old, advantages = np.float32([[-1, -2], [-3, 0], [-4, -5]]), np.float32([1, 2, 3])
    first, last = update_batches(rollout, {"old_log_probs": old, "advantages": advantages}, 2)
    assert first["token_ids"].tolist() == [[2, 90, 50, 1, 0], [2, 91, 92, 51, 0]]
    assert first["response_mask"].tolist() == [[True, True], [True, False]] and first["advantages"].tolist() == [1, 2]
    assert last["old_log_probs"][0].tolist() == [-4, -5] and last["advantages"].tolist() == [3, 0]
    assert last["response_mask"].tolist() == [[True, True], [False, False]]
    assert last["padding_mask"].tolist() == [[True, True, True, True, False], [True, False, False, False, False]]


def test_an_evaluation_by_hand(tmp_path):
    rollout = rollout_of([[2, 90]] * 3, [[50, 1], [51, 52], [53]], [True, False, True], ["a", "b", "c"])
    sampling = type("Sampling", (), {"seed": 0, "stage": "policy", "sample": lambda self, *given, step: rollout})()
    token_kl = np.array([[0.5, 0.25], [1.0, 0.0], [0.75, 0.0]])
    file = tmp_path / "samples.jsonl"
    players = sampling, prompts_of([[2, 90]] * 3), np.arange(3), FixedRater([1, 2, 4])
    evaluation = PolicyEvaluation(*players, FixedRater([0.5, 0.1, 0.3]), lambda rollout: token_kl, file)
    found = evaluation.measure(7)
    expected = {
        "reward": 7 / 3, "gold": 0.3, "kl": 0.5, "kl_sequence": 2.5 / 3, "reward_gold_correlation": -0.5,
        "completions/mean_length": 5 / 3, "completions/max_length": 2, "completions/clipped_ratio": 1 / 3,
    }  # fmt: skip
    assert {name: found[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert found["eval_reward_ci95_low"] < 7 / 3 < found["eval_reward_ci95_high"]
    assert read_jsonl(file)[1] == {"step": 7, "prompt": "prompt 1", "completion": "b", "reward": 2.0, "gold": 0.1}


def test_the_figures_of_a_rollout_by_hand():
    """Two prompts with three samples; the rewards of the first prompt are equal, those of no sample number are."""
    rollout = rollout_of(
        [[2, 90]] * 6, [[50, 1], [51, 52, 53], [1], [54, 55, 1], [56, 57, 1], [58, 1]],
        [True, False, True, True, True, True], [""] * 6, [0, 0, 0, 1, 1, 1],
    )  # fmt: skip
    found = rollout_figures(
        rollout, np.array([[2.0, 2, 2], [1, 3, 5]]), {"length": np.arange(6.0)}, np.arange(6.0), np.full((6, 3), 0.5)
    )
    assert found == {
        "reward": 2.5, "reward_std": pytest.approx(1.378405), "frac_reward_zero_std": 0.5, "rewards/length/mean": 2.5,
        "kl": pytest.approx(15 / 14), "kl_sequence": 2.5, "entropy": pytest.approx(9 / 14),
        "completions/mean_length": pytest.approx(14 / 6), "completions/max_length": 3.0,
        "completions/clipped_ratio": pytest.approx(1 / 6), "completions/distinct_bigrams": 1.0,
        "completions/equal_pairs": 0.0,
    }  # fmt: skip
    one = rollout_of([[2, 90]], [[50, 1]], [True], [""])
    assert rollout_figures(one, np.array([[2.0]]), {}, np.zeros(1), np.zeros((1, 2)))["reward_std"] == 0


def test_the_running_mean_takes_a_batch_in_after_judging_it():
    method = METHODS["reinforce"]()
    method.start(1.0)
    assert method.advantages(np.array([[2.0], [4.0]])).tolist() == [1.0, 3.0]
    assert method.baseline == pytest.approx(0.9 * 1.0 + 0.1 * 3.0)


def test_a_reward_that_is_not_finite_names_the_prompt():
    rollout = rollout_of([[2, 90], [2, 91]], [[50], [51]], [False, False], ["", ""])
    broken = type("Model", (), {"normalized": lambda self, raw: np.array([0.5, np.nan])})()
    rater = RewardModelRater.__new__(RewardModelRater)
    rater.name, rater._model = "reward", broken
    rater._scorer = type("Scorer", (), {"raw_scores": lambda self, sequences, length: np.zeros(2)})()
    with pytest.raises(
        DataError, match="data.jsonl:2: the reward 'reward' is nan for a response to the prompt 'prompt 1'"
    ):
        rater.score(prompts_of([[2], [2]]).examples, rollout)


def test_weighted_rewards_add_up_and_keep_their_parts():
    rollout = rollout_of([[2], [2]], [[5], [6]], [True, True], ["#### 4", "4"])
    rater = WeightedRater([FunctionRater("exact_answer"), FunctionRater("answer_format")], [2.0, 0.5])
    scores = rater.score(prompts_of([[2], [2]], ["4", "4"]).examples, rollout)
    assert scores.total.tolist() == [2.5, 2.0]
    assert {name: part.tolist() for name, part in scores.parts.items()} == {
        "exact_answer": [1, 1],
        "answer_format": [1, 0],
    }
    assert rater.source == "2 function:exact_answer + 0.5 function:answer_format"
    with pytest.raises(DataError, match="data.jsonl:1: The reward `exact_answer` needs an answer"):
        rater.score(prompts_of([[2], [2]]).examples, rollout)


@pytest.mark.slow
def test_a_reward_model_can_score_with_quantized_kernels(inputs, tmp_path):
    context = make_context(tmp_path, "policy", inputs=inputs)
    rollout = rollout_of(
        [[2, 90, 91], [2, 100], [2, 7, 8]], [[50, 60], [51, 61], [52, 1]], [False, False, True], ["", "", ""]
    )
    exact, rough = (
        make_rater("reward", context, RaterSettings("float32", mode, None, 4, 300)) for mode in (None, "int8")
    )
    difference = np.abs(rough.score([None] * 3, rollout).total - exact.score([None] * 3, rollout).total)
    assert 0 < difference.max() < 0.3


def test_a_sum_lies_between_the_sums_of_the_bounds():
    raters = [FunctionRater("exact_answer"), FixedRater([0]), FunctionRater("answer_format")]
    raters[1].name, raters[1].bounds = "fixed", (-1.0, 2.0)
    assert WeightedRater(raters, [2.0, -0.5, 1.0]).bounds == (0 - 1 + 0, 2 + 0.5 + 1)
    raters[1].bounds = None
    assert WeightedRater(raters, [2.0, -0.5, 1.0]).bounds is None


def test_a_reward_model_computes_in_the_dtype_that_is_asked_for(inputs, tmp_path):
    context = make_context(tmp_path, "policy", inputs=inputs)
    rater = make_rater("reward", context, RaterSettings("mixed_bfloat16", None, None, 4, 300))
    # Frozen: the numbers of mixed_bfloat16 in half the memory.
    assert rater._model.backbone.dtype_policy.name == "map_bfloat16"


def test_widths_change_no_score_and_scores_come_back_in_order(inputs):
    """Two sequences at a time, of four widths up to 60, against one width for all."""
    model = GemmaRewardModel.from_preset(inputs["reward"] / "model")
    sequences = [list(range(3, 3 + length)) for length in (50, 4, 20, 31, 8)]
    scorer = SequenceScorer(model, 2)
    scores = scorer.raw_scores(sequences, 60)
    assert len(set(scores.round(3).tolist())) == 5
    np.testing.assert_allclose(scores, scorer.raw_scores(sequences), atol=1e-5)


def test_a_reward_that_is_no_reward_model_is_refused(inputs, tmp_path):
    context = make_context(tmp_path, "policy", inputs=inputs)
    with pytest.raises(ConfigError, match="'sft' holds no reward model"):
        policy_optimization.run(config(reward="sft"), context)
