"""`lora:` in every training stage: adapters alone are trained, the reference is the policy without them, and both
outputs agree."""

import json

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import numpy as np
import pytest
from adapter_fixture import ADAPTER_PARAMETERS, LORA, SHAPES, assert_model_is_base_plus_adapter, weights
from keras import ops
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
from pipelines.stages.instruction_tuning import run as instruction_tuning
from pipelines.stages.pretraining import run as pretraining
from pipelines.stages.reward_modeling import run as reward_modeling
from pipelines.training.dropout_keys import dropout_keys
from pipelines.training.loop import Trainer


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tiny_tuned_model(tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def optimizers(monkeypatch):
    """Every optimizer that a stage builds."""
    built, original = [], Trainer.__init__

    def init(trainer, *arguments, **options):
        original(trainer, *arguments, **options)
        built.append(trainer.optimizer)

    monkeypatch.setattr(Trainer, "__init__", init)
    return built


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


@pytest.mark.once
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
@pytest.mark.once
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
