"""A policy optimization stage that trains an adapter, and whose rollouts a copy with int8 kernels draws: who drew, who
scored, what each token counted for, what came of it, and what is said of it, against plain numpy."""

import numpy as np
import pytest
from adapter_fixture import ADAPTER_PARAMETERS, LORA, assert_model_is_base_plus_adapter
from algorithm_pages import undocumented
from keras import ops
from policy_fixture import OPTIONS, EvenOrEnded, one_update, rollout_of, world_model
from policy_record import Recording, of_sampled, summed, tokens_of
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras import GemmaCausalLM
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.policy_optimization.updates import importance
from pipelines.training.adapters import attach

pytestmark = pytest.mark.once

TEMPERATURE, LIMIT = 0.7, 1.004
CHANGES = {
    "from": "sft", "reward": "exact_answer", "rollout_dtype": "int8", "importance_limit": LIMIT,
    "temperature": TEMPERATURE, "lora": LORA, "algorithm": "reinforce", "missing_stop_penalty": 0.25,
}  # fmt: skip
TIMES = ("step_time", "tokens_per_second", "sampling/tokens_per_second")


def run_of(folder, sft):
    config = stage_config("policy_optimization", **{**OPTIONS, **CHANGES})
    return Recording(config, make_context(folder, "policy", inputs={"sft": sft}))


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("inputs") / "sft", scale=4.0, stop_scale=5.0)


@pytest.fixture(scope="module")
def loaded():
    """From where the stage loaded models."""
    return []


@pytest.fixture(scope="module")
def stage(tmp_path_factory, sft, loaded):
    original = GemmaCausalLM.from_preset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            GemmaCausalLM, "from_preset", lambda source, **options: loaded.append(source) or original(source, **options)
        )
        return run_of(tmp_path_factory.mktemp("run"), sft)


def test_each_rollout_is_drawn_by_the_policy_of_its_step_rounded(stage):
    """A copy left as it was at the start lies further off in the second step."""
    for sampled, updated in zip(stage.training(), stage.updated, strict=True):
        for name, exact in updated.weights.items():
            bound = 0.5001 * np.abs(exact).max(axis=0) / 127 if name.endswith("_proj") else 0
            assert np.all(np.abs(sampled.weights[name] - exact) <= bound), name
    name = "layers.1.down_proj"
    first, second = (updated.weights[name] for updated in (stage.updated[0], stage.updated[-1]))
    assert np.abs(second - first).max() > np.abs(first).max() / 127


def test_evaluations_are_drawn_by_the_policy_itself(stage):
    first, _, last = stage.evaluation()
    assert all(np.array_equal(first.weights[name], values) for name, values in stage.updated[0].weights.items())
    assert not np.array_equal(last.weights["layers.1.down_proj"], stage.training()[-1].weights["layers.1.down_proj"])


def expected_of(stage, number):
    """Of each response, in the order of its rollout: its tokens' log-probabilities under policy and sampler."""
    sampled, updated = stage.training()[number], stage.updated[number]
    found = [stage.of_rollout(weights, sampled.rollout, TEMPERATURE) for weights in (updated.weights, sampled.weights)]
    rows = tokens_of(sampled.rollout)
    return [
        [of_sampled(log_probs, response) for log_probs, (_, response) in zip(one, rows, strict=True)] for one in found
    ]


def weights_in(updated):
    """Those of each response that counts, in the order of `Updated.rows`."""
    return [
        batch["importance_weights"][row][batch["response_mask"][row]]
        for batch in updated.batches
        for row in np.flatnonzero(batch["response_mask"].any(axis=1))
    ]


@pytest.mark.parametrize("number", [0, 4])
def test_old_log_probs_are_the_policys_and_tokens_weigh_their_ratio(stage, number):
    updated = stage.updated[number]
    policy, sampler = expected_of(stage, number)
    rows = tokens_of(stage.training()[number].rollout)
    for (prompt, response, old, _), weights in zip(updated.rows(), weights_in(updated), strict=True):
        row = rows.index((prompt, response))
        assert np.abs(old - policy[row]).max() < 1e-4
        assert np.abs(weights - np.minimum(np.exp(policy[row] - sampler[row]), LIMIT)).max() < 2e-4


@pytest.mark.parametrize("number", [0, 4])
def test_the_figures_of_a_step(stage, number):
    row = stage.steps[number]
    policy, sampler = map(np.concatenate, expected_of(stage, number))
    difference = sampler - policy
    free = np.exp(-difference)
    assert np.abs(difference).max() > 0.01
    expected = {
        "sampling_kl": np.mean(free - 1 + difference),
        "sampling_kl/k1": difference.mean(),
        "sampling_log_prob_difference/mean": np.abs(difference).mean(),
        "importance_weight/mean": np.minimum(free, LIMIT).mean(),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-3, abs=2e-5), name
    shares = [np.mean(free > LIMIT + margin) for margin in (1e-4, -1e-4)]
    assert 0 < shares[0] <= row["importance_weight/truncated"] <= shares[1] < 1


def test_every_metric_stands_in_the_page_of_its_algorithm(stage, repository):
    logged = {name for row in [*stage.steps, *stage.evaluations] for name in row} - {"step"}
    assert "importance_weight/mean" in logged
    assert undocumented(repository / "docs/algorithms/reinforce.md", logged) == set()


def test_the_final_figures_say_what_the_rounding_cost(stage):
    assert stage.final["rollout_dtype"] == "int8"
    for name, of_step in (("sampling_kl", "sampling_kl"), ("importance_truncated", "importance_weight/truncated")):
        assert stage.final[name] == pytest.approx(np.mean([row[of_step] for row in stage.steps]))
    assert stage.final["sampling_kl"] > 0


@pytest.mark.slow  # the stage a second time
def test_it_repeats_to_the_bit(stage, sft, tmp_path):
    run_of(tmp_path, sft)
    first, again = (
        [
            {name: value for name, value in row.items() if name not in TIMES}
            for row in read_jsonl(folder / "metrics.jsonl")
        ]
        for folder in (stage.context.output, tmp_path / "policy")
    )
    assert first == again
    weights = [folder / "model" / "model.safetensors" for folder in (stage.context.output, tmp_path / "policy")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_policy_without_its_adapter_is_the_reference(stage, loaded, sft, backend):
    assert len(loaded) == 1  # no second copy of the model
    assert_model_is_base_plus_adapter(sft, stage.context.output)
    # With and without the adapter's path are two programs, which XLA may round differently.
    start = [stage.evaluations[0]["eval_kl"], stage.steps[0]["kl"], stage.steps[0]["kl_sequence"]]
    assert max(map(abs, start)) <= (0 if backend == "torch" else 1e-6), start
    assert stage.final["kl"] > 1e-3 and stage.final["trainable_parameters"] == ADAPTER_PARAMETERS


def test_the_running_mean_starts_at_the_tuned_model_and_takes_in_a_tenth_of_each_rollout(stage):
    """`algorithm: reinforce`: advantages are returns minus the mean before this rollout entered it."""
    start, baseline = stage.sampled[0].weights, stage.evaluations[0]["eval_reward"]
    for sampled, updated in list(zip(stage.training(), stage.updated, strict=True))[:3]:
        rollout = sampled.rollout
        policy, reference = (
            summed(stage.of_rollout(weights, rollout, TEMPERATURE), rollout) for weights in (updated.weights, start)
        )
        returns = EvenOrEnded().score([], rollout).total - 0.01 * (policy - reference) - 0.25 * ~rollout.finished
        rows = [tokens_of(rollout).index(row[:2]) for row in updated.rows()]
        assert [row[3] for row in updated.rows()] == pytest.approx((returns - baseline)[rows].tolist(), abs=1e-4)
        baseline = 0.9 * baseline + 0.1 * returns.mean()
    assert abs(baseline - stage.evaluations[0]["eval_reward"]) > 0.01


def test_an_update_makes_a_good_response_likelier_and_moves_no_base_weight(sft):
    model = GemmaCausalLM.from_preset(sft / "model")
    attach(model, stage_config("instruction_tuning", data={"path": "x"}, lora=LORA), seed=3)
    base = {
        name: np.array(ops.convert_to_numpy(variable)) for name, variable in model.backbone.named_variables().items()
    }
    one_update(model, [1.0, -2.0, 0.5], 3)  # `a` has no gradient while `b` is zero
    before, after, _ = one_update(model, [1.0, -2.0, 0.5], 3)
    assert after[0] > before[0] and after[1] < before[1]
    for name, variable in model.backbone.named_variables().items():
        np.testing.assert_array_equal(base[name], ops.convert_to_numpy(variable))


def test_its_kl_is_that_of_the_written_models(stage, sft):
    policy, reference = (GemmaCausalLM.from_preset(folder / "model") for folder in (stage.context.output, sft))
    adapted = GemmaCausalLM.from_preset(sft / "model")
    adapted.load_adapter(stage.context.output / "adapter")
    rollout = rollout_of([[2, 90, 91], [2, 100]], [[50, 60, 61], [52, 1]], [False, True], ["", ""])
    two_models = ExactKL(policy, ReferencePolicy(reference), 1.0, 2)(rollout)
    one_model = ExactKL(adapted, ReferencePolicy(adapted, is_adapter_off=True), 1.0, 2)(rollout)
    assert two_models.max() > 1e-3
    np.testing.assert_allclose(one_model, two_models, atol=1e-5)


ROLLOUT = rollout_of([[2], [2]], [[5, 6], [7]], [False, True], ["", ""], log_probs=np.log([[0.5, 0.25], [0.2, 1.0]]))
POLICY = np.log(np.float32([[0.25, 0.75], [0.8, 1e-9]]))


def test_without_a_correction_the_distance_is_measured_alone():
    """Sampler over policy: 2, 1/3, 1/4."""
    weights, figures = importance(ROLLOUT, POLICY, "none", 2.0)
    assert weights is None
    assert figures == pytest.approx(
        {"sampling_kl": (0.5 + 3 + 4 - 3 + np.log(2 / 12)) / 3, "sampling_kl/k1": np.log(2 / 12) / 3}
    )


def test_the_figures_of_weights_by_hand():
    """Ratios 1/2, 3 and 4; or 3/2 and 4 of whole responses. Shares and means are over tokens."""
    weights, figures = importance(ROLLOUT, POLICY, "token", 3.5)
    np.testing.assert_allclose(weights, [[0.5, 3], [3.5, 0]], rtol=1e-6)
    assert figures["importance_weight/mean"] == pytest.approx(7 / 3)
    assert figures["importance_weight/truncated"] == pytest.approx(1 / 3)
    weights, figures = importance(ROLLOUT, POLICY, "sequence", 3.5)
    np.testing.assert_allclose(weights, [[1.5, 1.5], [3.5, 0]], rtol=1e-6)
    assert figures["importance_weight/mean"] == pytest.approx(6.5 / 3)


def test_the_correction_stands_where_the_sampler_is_another_or_it_is_asked_for():
    def config(**changes):
        return stage_config("policy_optimization", **{**OPTIONS, "from": "sft", "reward": "exact_answer", **changes})

    assert config().correction == "none" and not config().measures_sampler
    assert config(rollout_dtype="bfloat16").correction == "token"
    assert config(rollout_dtype="int8", importance_correction="sequence").correction == "sequence"
    alone = config(rollout_dtype="int8", importance_correction="none")
    assert alone.correction == "none" and alone.measures_sampler
    assert config(importance_correction="token").measures_sampler
    assert policy_optimization._sampling(None, config(), make_context_of()).with_entropy
    assert not policy_optimization._sampling(None, alone, make_context_of()).with_entropy


def make_context_of():
    return type("Context", (), {"seed": 1, "name": "policy", "throughput": None})()
