"""`lora:` in every training stage: adapters alone are trained, the reference is the policy without them, and both
outputs agree."""

import json

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import numpy as np
import pytest
from keras import ops
from policy_fixture import OPTIONS as POLICY_OPTIONS
from policy_fixture import EvenOrEnded, one_update, rollout_of, world_model
from policy_record import Recording, summed, tokens_of
from safetensors.numpy import load_file
from stage_fixture import (
    collected_preferences,
    make_context,
    read_jsonl,
    sentences,
    stage_config,
    tiny_tuned_model,
    write_jsonl,
)

from gemma_keras import GemmaCausalLM, GemmaRewardModel
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.stages.instruction_tuning import run as instruction_tuning
from pipelines.stages.pretraining import run as pretraining
from pipelines.stages.reward_modeling import run as reward_modeling
from pipelines.training.adapters import attach
from pipelines.training.dropout_keys import dropout_keys
from pipelines.training.loop import Trainer

LORA = {"rank": 3, "alpha": 12.0}
TARGETS = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tiny_tuned_model(tmp_path_factory.mktemp("tuned"))


def weights(folder):
    """The tensors of a written folder, opened without our code."""
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def assert_model_is_base_plus_adapter(base, output, targets=TARGETS, scale=4.0):
    """Untouched tensors bit-equal; adapted ones the sum, put together here from the adapter's file."""
    before, after, adapter = weights(base / "model"), weights(output / "model"), weights(output / "adapter")
    adapted = {f"{name}.weight" for layer in (0, 1) for part in targets for name in _names(layer, part, targets)}
    assert {name for name in before if not np.array_equal(before[name], after[name])} == adapted
    for name in adapted:
        a, b = (adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight"] for side in "AB")
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(after[name], before[name] + scale * (b @ a), rtol=0, atol=1e-6)
    return adapter


def _names(layer, part, targets):
    return [f"model.layers.{layer}.{part}.{target}" for target in targets[part]]


@pytest.fixture
def optimizers(monkeypatch):
    """Every optimizer that a stage builds."""
    built, original = [], Trainer.__init__

    def init(trainer, *arguments, **options):
        original(trainer, *arguments, **options)
        built.append(trainer.optimizer)

    monkeypatch.setattr(Trainer, "__init__", init)
    return built


def adapter_size(rank, inputs_and_outputs):
    return sum(rank * (inputs + outputs) for inputs, outputs in inputs_and_outputs)


# d = 16, two query heads of 8, one key-value head, 32 inside; two layers.
SHAPES = {"q_proj": (16, 16), "k_proj": (16, 8), "v_proj": (16, 8), "o_proj": (16, 16), "gate_proj": (16, 32),
    "up_proj": (16, 32),
          "down_proj": (32, 16)}  # fmt: skip
ADAPTER_PARAMETERS = 2 * adapter_size(3, SHAPES.values())


def tune(folder, tuned, lora=LORA, **options):
    rows = [dict(zip(("prompt", "completion"), text.split(": "), strict=True)) for text in sentences(24)]
    data = {"path": write_jsonl(folder / "pairs.jsonl", rows)}
    settings = {"max_length": 48, "batch_size": 4, "learning_rate": 0.02, "from": "tuned", "epochs": 2, **options}
    context = make_context(folder, "sft", inputs={"tuned": tuned})
    return instruction_tuning.run(
        stage_config("instruction_tuning", data=data, lora=lora, **settings), context
    ), context


def test_tuning_trains_the_adapter_alone(tmp_path, tuned, optimizers):
    figures, context = tune(tmp_path, tuned, eval_every=4, epochs=4)
    assert_model_is_base_plus_adapter(tuned, context.output)
    assert figures["eval_loss"] < 0.9 * figures["eval_loss_curve"][0][1]
    assert figures["trainable_parameters"] == ADAPTER_PARAMETERS
    moments = [variable for variable in optimizers[0].variables if len(variable.shape) == 2]
    assert sum(int(np.prod(variable.shape)) for variable in moments) == 2 * ADAPTER_PARAMETERS
    config = json.loads((context.output / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, 12.0, "LORA")
    base = (context.output / "adapter" / config["base_model_name_or_path"]).resolve()
    assert base == (tuned / "model").resolve()


@pytest.mark.slow
def test_the_folder_of_the_adapter_over_the_base_is_the_model(tmp_path, tuned):
    _, context = tune(tmp_path, tuned, lora={**LORA, "targets": ["q_proj", "down_proj"]})
    assert_model_is_base_plus_adapter(tuned, context.output, {"self_attn": ("q_proj",), "mlp": ("down_proj",)})
    merged, adapted = (GemmaCausalLM.from_preset(folder / "model") for folder in (context.output, tuned))
    adapted.load_adapter(context.output / "adapter")
    ids = np.arange(40, 56)[None]
    logits = [ops.convert_to_numpy(model({"token_ids": ids})) for model in (merged, adapted)]
    np.testing.assert_allclose(*logits, atol=1e-4)


def test_dropout_does_not_depend_on_the_micro_batches(tmp_path, tuned):
    losses = []
    for name, options in {"whole": {}, "parts": {"micro_batch_size": 1}, "none": {"lora": LORA}}.items():
        (tmp_path / name).mkdir()
        _, context = tune(
            tmp_path / name, tuned, **{"lora": {**LORA, "dropout": 0.5}, "heldout_fraction": 0.0, **options}
        )
        losses.append([row["loss"] for row in read_jsonl(context.output / "metrics.jsonl") if "loss" in row])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    # `b` starts at zero, so that dropping the inputs shows from the second update on.
    assert (
        losses[2][0] == pytest.approx(losses[0][0], rel=1e-5)
        and np.abs(np.subtract(losses[0], losses[2])[2:]).min() > 1e-5
    )


def test_adapters_stay_float32_over_bfloat16_weights(tmp_path, tuned):
    figures, context = tune(tmp_path, tuned, dtype="bfloat16", eval_every=6)
    assert figures["eval_loss"] < 0.95 * figures["eval_loss_curve"][0][1]
    before, after, adapter = (
        weights(tuned / "model"),
        weights(context.output / "model"),
        weights(context.output / "adapter"),
    )
    assert {values.dtype.name for values in [*after.values(), *adapter.values()]} == {"float32"}
    name = "model.layers.0.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    # What is saved is the sum over the rounded base, itself not rounded again.
    rounded = before[f"{name}.weight"].astype("bfloat16").astype(np.float32)
    np.testing.assert_allclose(after[f"{name}.weight"], rounded + 4 * (b @ a), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        after["model.norm.weight"], before["model.norm.weight"].astype("bfloat16").astype(np.float32)
    )


def test_a_row_draws_by_seed_stage_step_and_number():
    keys = dropout_keys(1, "sft", 5, np.array([7, 3, -1]), 6)
    assert keys.dtype == np.int32 and len(set(keys.tolist())) == 6
    np.testing.assert_array_equal(dropout_keys(1, "sft", 5, np.array([3, 7]), 4), keys[[1, 0, 4, 3]])
    others = [dropout_keys(*where, np.array([7]), 1)[0] for where in ((2, "sft", 5), (1, "reward", 5), (1, "sft", 6))]
    assert len({keys[0], *others}) == 4


@pytest.mark.slow  # one loop with tuning
def test_pretraining_goes_on_with_an_adapter(tmp_path, tuned):
    data = {"path": write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in sentences(24)])}
    context = make_context(tmp_path, "pretraining", inputs={"tuned": tuned})
    options = {"max_length": 32, "batch_size": 4, "learning_rate": 0.02, "from": "tuned", "lora": LORA, "data": data}
    figures = pretraining.run(stage_config("pretraining", **options), context)
    assert figures["trainable_parameters"] == ADAPTER_PARAMETERS
    assert_model_is_base_plus_adapter(tuned, context.output)


@pytest.mark.parametrize("quantize", [None, pytest.param("int8", marks=pytest.mark.slow)])
def test_a_reward_model_trains_adapter_and_head(tmp_path, tuned, quantize):
    inputs = {"tuned": tuned, "collected": collected_preferences(tmp_path / "collected")}
    context = make_context(tmp_path, "reward", inputs=inputs)
    options = {
        "from": "tuned",
        "data": "collected",
        "max_length": 16,
        "batch_size": 8,
        "learning_rate": 0.02,
        "normalize_prompts": 20,
    }
    lora = {**LORA, "dropout": 0.1, "quantize": quantize}
    figures = reward_modeling.run(
        stage_config("reward_modeling", epochs=5, heldout_fraction=0.3, lora=lora, **options), context
    )
    assert figures["trainable_parameters"] == ADAPTER_PARAMETERS + 16
    assert figures["accuracy"] > 0.7  # 0.9 is possible
    head = weights(context.output / "adapter")["base_model.model.score.weight"]
    np.testing.assert_array_equal(head, weights(context.output / "model")["score.weight"])
    before, after, adapter = (
        weights(tuned / "model"),
        weights(context.output / "model"),
        weights(context.output / "adapter"),
    )
    assert set(before) | {"score.weight"} == set(after) and len(adapter) == 2 * 2 * len(SHAPES) + 1
    name = "model.layers.1.mlp.up_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    rounding = 1e-6 if quantize is None else 0.51 * np.abs(before[f"{name}.weight"]).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(after[f"{name}.weight"] - before[f"{name}.weight"] - 4 * (b @ a)) <= rounding)
    model = GemmaRewardModel.from_preset(context.output / "model")
    assert (model.reward_mean, model.reward_std) == pytest.approx((figures["reward_mean"], figures["reward_std"]))


@pytest.fixture(scope="module")
def optimized(tmp_path_factory):
    """A policy with an adapter under `algorithm: reinforce`, the models it loaded, and the folder that it came from."""
    folder = tmp_path_factory.mktemp("policy")
    sft = world_model(folder / "sft", scale=4.0, stop_scale=5.0)
    context = make_context(folder, "policy", inputs={"sft": sft})
    loaded, original = [], GemmaCausalLM.from_preset
    options = {**POLICY_OPTIONS, "lora": LORA, "algorithm": "reinforce", "missing_stop_penalty": 0.25}
    config = stage_config("policy_optimization", **{"from": "sft", "reward": "exact_answer", **options})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            GemmaCausalLM, "from_preset", lambda source, **options: loaded.append(source) or original(source, **options)
        )
        stage = Recording(config, context)
    return stage, loaded, sft


def test_the_policy_without_its_adapter_is_the_reference(optimized, backend):
    stage, loaded, sft = optimized
    assert len(loaded) == 1  # no second copy of the model
    assert_model_is_base_plus_adapter(sft, stage.context.output)
    # With and without the adapter's path are two programs, which XLA may round differently.
    start = [stage.evaluations[0]["eval_kl"], stage.steps[0]["kl"], stage.steps[0]["kl_sequence"]]
    assert max(map(abs, start)) <= (0 if backend == "torch" else 1e-6), start
    assert stage.final["kl"] > 1e-3 and stage.final["trainable_parameters"] == ADAPTER_PARAMETERS


def test_the_running_mean_starts_at_the_tuned_model_and_takes_in_a_tenth_of_each_rollout(optimized):
    """`algorithm: reinforce`: advantages are returns minus the mean before this rollout entered it."""
    stage, _, _ = optimized
    start, baseline = stage.sampled[0].weights, stage.evaluations[0]["eval_reward"]
    for sampled, updated in list(zip(stage.training(), stage.updated, strict=True))[:3]:
        rollout = sampled.rollout
        policy, reference = (
            summed(stage.of_rollout(weights, rollout, 1.0), rollout) for weights in (sampled.weights, start)
        )
        returns = EvenOrEnded().score([], rollout).total - 0.01 * (policy - reference) - 0.25 * ~rollout.finished
        rows = [tokens_of(rollout).index(row[:2]) for row in updated.rows()]
        assert [row[3] for row in updated.rows()] == pytest.approx((returns - baseline)[rows].tolist(), abs=1e-4)
        baseline = 0.9 * baseline + 0.1 * returns.mean()
    assert abs(baseline - stage.evaluations[0]["eval_reward"]) > 0.01


def test_an_update_makes_a_good_response_likelier_and_moves_no_base_weight(optimized):
    _, _, sft = optimized
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


def test_its_kl_is_that_of_the_written_models(optimized):
    stage, _, sft = optimized
    policy, reference = (GemmaCausalLM.from_preset(folder / "model") for folder in (stage.context.output, sft))
    adapted = GemmaCausalLM.from_preset(sft / "model")
    adapted.load_adapter(stage.context.output / "adapter")
    rollout = rollout_of([[2, 90, 91], [2, 100]], [[50, 60, 61], [52, 1]], [False, True], ["", ""])
    two_models = ExactKL(policy, ReferencePolicy(reference), 1.0, 2)(rollout)
    one_model = ExactKL(adapted, ReferencePolicy(adapted, is_adapter_off=True), 1.0, 2)(rollout)
    assert two_models.max() > 1e-3
    np.testing.assert_allclose(one_model, two_models, atol=1e-5)
