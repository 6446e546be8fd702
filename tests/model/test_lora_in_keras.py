"""Adapters under what Keras does with a model: fit with dropout, callbacks, its own files, flags that the user set."""

import copy

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaRewardModel
from gemma_keras.backends import to_host

IDS = np.random.default_rng(5).integers(3, 97, (2, 9)).astype(np.int32)
INPUTS = {"token_ids": IDS, "padding_mask": np.ones(IDS.shape, bool)}


def logits(model):
    return np.array(to_host(model(INPUTS)))


@pytest.fixture(scope="module")
def config(tiny_configs):
    return tiny_configs["gemma"].replace(num_layers=1, local_layers=(False,))


@pytest.fixture
def model(config):
    return GemmaCausalLM(GemmaBackbone(config, seed=3))


def with_random_adapter(model, seed=1, **options):
    model.enable_lora(rank=2, **options)
    rng = np.random.default_rng(seed)
    for projection in model.backbone.projections().values():
        if projection.active is not None:
            projection.active.b.assign(rng.normal(0, 0.3, projection.active.b.shape).astype(np.float32))
    return model


def test_fit_drops_inputs_of_the_adapter(config):
    losses = {}
    for rate in (0.0, 0.5):
        model = with_random_adapter(GemmaCausalLM(GemmaBackbone(config, seed=3)), dropout=rate)
        model.compile(optimizer=keras.optimizers.SGD(0.0))
        losses[rate] = model.fit({"token_ids": IDS}, batch_size=1, epochs=2, shuffle=False, verbose=0).history["loss"]
        assert model.evaluate({"token_ids": IDS}, batch_size=1, verbose=0) == pytest.approx(losses[0.0][0], abs=1e-5)
    # Nothing is learned: what differs is what was dropped, another part in each step.
    assert losses[0.0][0] == pytest.approx(losses[0.0][1], abs=1e-6)
    assert abs(losses[0.5][0] - losses[0.5][1]) > 1e-4 and abs(losses[0.5][0] - losses[0.0][0]) > 1e-4
    assert int(to_host(model.backbone._dropout_counter.value)) == 4


def test_the_base_model_can_be_measured_while_fit_runs(model):
    with_random_adapter(model)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    found = []

    class MeasureBase(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with model.adapters_off():
                found.append(model.evaluate({"token_ids": IDS}, verbose=0))

    losses = model.fit(
        {"token_ids": IDS}, epochs=3, verbose=0, validation_data={"token_ids": IDS}, callbacks=[MeasureBase()]
    ).history
    assert found == pytest.approx([found[0]] * 3, abs=1e-6)
    assert losses["val_loss"][2] < losses["val_loss"][0] < found[0] + 5


SAVING = pytest.mark.fault("Keras' own saving: weights, pickle, BackupAndRestore, ModelCheckpoint, threads")


@SAVING
def test_keras_files_hold_the_adapters(model, config, tmp_path):
    with_random_adapter(model, dropout=0.1, name="one", target_layer_names=["q_proj", "up_proj"])
    with_random_adapter(model, seed=2, name="two")
    two = logits(model)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for copied in (again, copy.deepcopy(model)):
        assert copied.adapters == model.adapters and copied.active_adapter == "two"
        np.testing.assert_array_equal(logits(copied), two)
    model.set_adapter("one")
    again.set_adapter("one")
    np.testing.assert_array_equal(logits(again), logits(model))
    other = GemmaCausalLM(GemmaBackbone(config, seed=9))
    with pytest.raises(ValueError, match="adapters that this model has not"):
        other.load_weights(tmp_path / "model.weights.h5")
    for name, options in model.adapters.items():
        other.add_adapter(name, options)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(logits(other), two)
    model.merge_adapter()
    with pytest.raises(ValueError, match="merged"):
        model.save_weights(tmp_path / "merged.weights.h5")


@SAVING
def test_weights_of_a_plain_model_load_under_an_adapter(model, config, tmp_path):
    GemmaCausalLM(GemmaBackbone(config, seed=9)).save_weights(tmp_path / "base.weights.h5")
    with_random_adapter(model, dropout=0.1)
    model.load_weights(tmp_path / "base.weights.h5")
    with model.adapters_off():
        np.testing.assert_array_equal(logits(model), logits(GemmaCausalLM(GemmaBackbone(config, seed=9))))


@SAVING
def test_a_reward_models_keras_file_holds_its_scale(config, tmp_path):
    model = GemmaRewardModel(GemmaBackbone(config, seed=3))
    model.reward_mean, model.reward_std = 3.0, 2.0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.reward_mean, again.reward_std) == (3.0, 2.0)
    np.testing.assert_array_equal(to_host(again(INPUTS)), to_host(model(INPUTS)))


def test_a_reward_models_head_belongs_to_one_adapter(config):
    model = GemmaRewardModel(GemmaBackbone(config, seed=3))
    model.enable_lora(rank=2, name="one")
    with pytest.raises(ValueError, match="one head and so one adapter"):
        model.enable_lora(rank=2, name="two")
    model.delete_adapter("one")
    model.enable_lora(rank=2, name="two")


@pytest.mark.parametrize("mode", [None, pytest.param("int4", marks=pytest.mark.slow)])
def test_what_was_frozen_before_is_frozen_after(model, mode):
    model.backbone.token_embedding.trainable = False
    if mode is not None:
        model.quantize(mode)
    before = [variable.path for variable in model.trainable_variables]
    model.enable_lora(rank=2)
    model.delete_adapter("default")
    assert [variable.path for variable in model.trainable_variables] == before


def test_kernels_quantized_under_an_adapter_stay_frozen_and_out_of_keras_files(model, tmp_path):
    model.enable_lora(rank=2)
    model.quantize("int8")
    with pytest.raises(ValueError, match="do not hold quantized kernels"):
        model.save(tmp_path / "model.keras")
    model.delete_adapter("default")
    assert {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables} == {"embeddings", "scale"}


def test_nothing_is_changed_while_adapters_are_off(model):
    with_random_adapter(model)
    adapted = logits(model)
    changes = (
        lambda: model.enable_lora(name="other"),
        lambda: model.delete_adapter("default"),
        lambda: model.set_adapter(None),
        model.merge_adapter,
        lambda: model.quantize("int8"),
    )
    with model.adapters_off(), model.adapters_off():
        for change in changes:
            with pytest.raises(ValueError, match="leave `adapters_off` before you"):
                change()
    np.testing.assert_array_equal(logits(model), adapted)


def test_a_merged_adapter_is_not_trained(model):
    with_random_adapter(model)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.merge_adapter()
    with pytest.raises(ValueError, match="is merged: unmerge_adapter.. before you train"):
        model.fit({"token_ids": IDS}, verbose=0)


def test_garbage_is_collected_once_and_not_for_every_weight(model, monkeypatch):
    """Keras collects after each deleted weight: minutes for the adapters of a large model in a large process."""
    calls = []
    monkeypatch.setattr("gc.collect", lambda *arguments: calls.append(arguments))
    with_random_adapter(model)
    model.delete_adapter("default")
    assert len(calls) == 1
    model.quantize("int8")
    assert len(calls) == 2
