"""Adapters: nothing changes until they are trained, off is off, merged and taken apart, saved and read."""

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaRewardModel
from gemma_keras.backends import to_host
from gemma_keras.checkpoints.errors import CheckpointError

IDS = np.random.default_rng(5).integers(3, 97, (2, 9)).astype(np.int32)
INPUTS = {"token_ids": IDS, "padding_mask": np.ones(IDS.shape, bool)}


def logits(model):
    return np.array(to_host(model(INPUTS)))


def random_adapter(model, seed=1):
    """Give the active adapter weights that matter."""
    rng = np.random.default_rng(seed)
    for projection in model.backbone.projections().values():
        if projection.active is not None:
            projection.active.b.assign(rng.normal(0, 0.1, projection.active.b.shape).astype(np.float32))


@pytest.fixture
def model(tiny_configs):
    # One layer: what matters here happens in each, and most of the time goes into compiling.
    return GemmaCausalLM(GemmaBackbone(tiny_configs["gemma3"].replace(num_layers=1, local_layers=(True,)), seed=3))


@pytest.fixture(scope="module")
def trained(tiny_configs):
    """A model after three updates of its adapter with dropout, its logits before and after."""
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=3))
    base = logits(model)
    before = {variable.path: np.array(to_host(variable.value)) for variable in model.variables}
    model.enable_lora(rank=4, alpha=8, dropout=0.2, seed=2)
    untrained = logits(model)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit({"token_ids": IDS}, batch_size=2, epochs=3, verbose=0)
    return model, base, untrained, before, logits(model)


def test_a_new_adapter_changes_nothing_and_training_it_does(trained):
    model, base, untrained, _, after = trained
    np.testing.assert_array_equal(untrained, base)
    assert np.abs(after - base).max() > 0.05


def test_training_touches_the_adapter_alone_and_the_optimizer_holds_state_for_it_alone(trained):
    model, _, _, before, _ = trained
    # 3 layers x 7 projections x (a, b); rank 4 over the sizes of the tiny model.
    sizes = {
        "q": (16, 32),
        "k": (16, 8),
        "v": (16, 8),
        "o": (32, 16),
        "gate": (16, 32),
        "up": (16, 32),
        "down": (32, 16),
    }
    weights = 3 * sum(4 * (inputs + outputs) for inputs, outputs in sizes.values())
    assert len(model.trainable_variables) == 3 * 7 * 2
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == weights
    # Adam: two moments a weight, and the step and learning rate.
    assert sum(int(np.prod(variable.shape)) for variable in model.optimizer.variables) == 2 * weights + 2
    for variable in model.variables:
        if variable.path in before:
            np.testing.assert_array_equal(to_host(variable.value), before[variable.path], err_msg=variable.path)


def test_an_optimizer_of_other_weights_is_refused_until_compiled_anew(model):
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.enable_lora(rank=2)  # compiled but not built: nothing is held yet
    model.fit({"token_ids": IDS}, batch_size=2, verbose=0)
    model.enable_lora(rank=3, name="other")
    with pytest.raises(ValueError, match=r"state for 14 weights, but other ones are trainable now \(14\).*compile\(\)"):
        model.fit({"token_ids": IDS}, batch_size=2, verbose=0)
    model.set_adapter("default")
    model.fit({"token_ids": IDS}, batch_size=2, verbose=0)
    model.delete_adapter("default")
    with pytest.raises(ValueError, match="compile"):
        model.fit({"token_ids": IDS}, batch_size=2, verbose=0)
    model.set_adapter("other")
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit({"token_ids": IDS}, batch_size=2, verbose=0)


def test_off_is_the_base_model_in_scoring_and_in_generation(trained):
    model, base, _, _, after = trained
    greedy = {"max_length": 16, "stop_token_ids": None, "sampler": "greedy"}
    adapted = model.generate(INPUTS, **greedy)["token_ids"]
    with model.adapters_off():
        np.testing.assert_array_equal(logits(model), base)
        assert model.active_adapter is None
        plain = model.generate(INPUTS, **greedy)["token_ids"]
    fresh = GemmaCausalLM(GemmaBackbone(model.config, seed=3)).generate(INPUTS, **greedy)["token_ids"]
    np.testing.assert_array_equal(plain, fresh)
    np.testing.assert_array_equal(logits(model), after)
    np.testing.assert_array_equal(model.generate(INPUTS, **greedy)["token_ids"], adapted)
    assert (adapted != plain).any()
    assert len(model.trainable_variables) == 42


def test_programs_follow_adapters_that_the_backbone_was_given(model):
    """KerasHub's way, `model.backbone.enable_lora`, after Keras made its programs."""
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    base, states = model.evaluate({"token_ids": IDS}, verbose=0), model.backbone.predict(INPUTS, verbose=0)
    model.backbone.enable_lora(4, target_layer_names=["q_proj", "down_proj"])
    random_adapter(model)
    assert abs(model.evaluate({"token_ids": IDS}, verbose=0) - base) > 1e-3
    assert np.abs(model.backbone.predict(INPUTS, verbose=0) - states).max() > 1e-2
    with model.backbone.adapters_off():
        assert model.evaluate({"token_ids": IDS}, verbose=0) == pytest.approx(base, abs=1e-6)
        np.testing.assert_allclose(model.backbone.predict(INPUTS, verbose=0), states, atol=1e-5)


def test_off_ends_with_an_error_too(trained):
    model, *_, after = trained
    with pytest.raises(RuntimeError), model.adapters_off():
        raise RuntimeError
    np.testing.assert_array_equal(logits(model), after)


def test_merged_equals_adapted_and_unmerged_is_bit_equal(model):
    model.enable_lora(rank=3, target_layer_names=["query", "down_proj"])
    random_adapter(model)
    adapted = logits(model)
    kernels = {name: np.array(to_host(v.value)) for name, v in model.backbone.named_variables().items()}
    model.merge_adapter()
    merged = {name: np.array(to_host(v.value)) for name, v in model.backbone.named_variables().items()}
    changed = {name.rsplit(".", 1)[-1] for name in kernels if not np.array_equal(kernels[name], merged[name])}
    assert changed == {"q_proj", "down_proj"}
    np.testing.assert_allclose(logits(model), adapted, atol=2e-5)
    with pytest.raises(ValueError, match="is merged"):
        model.set_adapter(None)
    model.unmerge_adapter()
    for name, variable in model.backbone.named_variables().items():
        np.testing.assert_array_equal(to_host(variable.value), kernels[name], err_msg=name)
    np.testing.assert_array_equal(logits(model), adapted)


def test_the_path_is_the_formula(model):
    """y = x W + alpha / sqrt(r) x A B, computed by hand for one projection."""
    model.enable_lora(rank=4, alpha=6, rank_stabilized=True, target_layer_names="o_proj")
    random_adapter(model)
    projection = model.backbone.projections()["layers.0.o_proj"]
    x = np.random.default_rng(0).normal(size=(2, 5, 32)).astype(np.float32)
    kernel, a, b = (
        np.array(to_host(v.value), np.float64) for v in (projection.kernel, projection.active.a, projection.active.b)
    )
    expected = x @ kernel + 6 / np.sqrt(4) * (x @ a @ b)
    np.testing.assert_allclose(to_host(projection(x)), expected, atol=1e-5)


def test_several_adapters_take_turns(model):
    base = logits(model)
    model.enable_lora(rank=2, name="one")
    random_adapter(model, 1)
    one = logits(model)
    model.enable_lora(rank=3, name="two", target_layer_names=["v_proj"])
    np.testing.assert_array_equal(logits(model), base)
    random_adapter(model, 2)
    two = logits(model)
    assert len(model.trainable_variables) == 2
    model.set_adapter("one")
    np.testing.assert_array_equal(logits(model), one)
    model.set_adapter("two")
    np.testing.assert_array_equal(logits(model), two)
    model.delete_adapter("two")
    assert list(model.adapters) == ["one"] and model.active_adapter is None
    np.testing.assert_array_equal(logits(model), base)
    count = len(model.variables)
    model.delete_adapter("one")
    assert len(model.variables) == count - 14 and len(model.trainable_variables) == len(
        model.backbone.named_variables()
    )


def test_dropout_depends_on_the_row_key_alone(model):
    model.enable_lora(rank=4, dropout=0.5)
    random_adapter(model)
    keys = np.array([7, 8], np.int32)
    both = to_host(model({**INPUTS, "dropout_keys": keys}))
    second = to_host(
        model({"token_ids": IDS[1:], "padding_mask": INPUTS["padding_mask"][1:], "dropout_keys": keys[1:]})
    )
    np.testing.assert_allclose(both[1:], second, atol=1e-5)
    np.testing.assert_array_equal(both, to_host(model({**INPUTS, "dropout_keys": keys})))
    assert np.abs(both - to_host(model({**INPUTS, "dropout_keys": keys + 2}))).max() > 1e-3
    assert np.abs(both - logits(model)).max() > 1e-3


def test_dropout_masks_are_the_same_numbers_everywhere_and_have_their_share():
    from gemma_keras.layers.dropout import dropout

    ones = np.ones((2, 64, 32), np.float32)
    kept = np.array(to_host(dropout(keras.ops.convert_to_tensor(ones), 0.25, np.array([3, 4], np.int32), 11)))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    # 4,096 draws: three standard deviations of the share are 0.02.
    assert abs((kept == 0).mean() - 0.25) < 0.02
    assert (kept[0] != kept[1]).mean() > 0.3
    # The same in unsigned numbers of numpy, which wrap around and shift zeros in.
    row = mixed(mixed(np.uint32(3)) ^ np.uint32(11))
    draws = mixed(row + np.arange(64 * 32, dtype=np.uint32) * np.uint32(0x3C6EF35F)) & np.uint32(0x7FFFFFFF)
    np.testing.assert_array_equal(kept[0].reshape(-1) == 0, draws < 2**31 // 4)


def mixed(x):
    """lowbias32."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_kernels_stay_near_and_serve_an_adapter(tiny_configs, mode):
    config = tiny_configs["gemma"].replace(hidden_dim=64, intermediate_dim=128, num_layers=1, local_layers=(False,))
    model = GemmaCausalLM(GemmaBackbone(config, seed=4))
    exact = {name: projection.effective_kernel() for name, projection in model.backbone.projections().items()}
    base = logits(model)
    model.quantize(mode)
    levels = {"int8": 254, "int4": 15}[mode]
    for name, projection in model.backbone.projections().items():
        # Half a step of the column's (int8) or group's (int4) range.
        span = (
            exact[name].max(axis=0) - exact[name].min(axis=0) if mode == "int4" else 2 * np.abs(exact[name]).max(axis=0)
        )
        error = np.abs(projection.effective_kernel() - exact[name]).max(axis=0)
        assert (error <= 1.01 * span / levels).all(), name
    quantized = logits(model)
    # Kernels alone: the model computes with what it writes.
    for name, projection in model.backbone.projections().items():
        x = np.random.default_rng(1).normal(size=(3, projection.inputs)).astype(np.float32)
        found = to_host(projection(keras.ops.convert_to_tensor(x)))
        np.testing.assert_allclose(found, x @ projection.effective_kernel(), atol=1e-4, err_msg=name)
    assert 0 < np.abs(quantized - base).max() < {"int8": 0.5, "int4": 6}[mode]
    model.enable_lora(rank=4)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit({"token_ids": IDS}, batch_size=2, epochs=2, verbose=0)
    assert np.abs(logits(model) - quantized).max() > 1e-3
    with model.adapters_off():
        np.testing.assert_array_equal(logits(model), quantized)
    with pytest.raises(ValueError, match="cannot hold the sum"):
        model.merge_adapter()
    with pytest.raises(ValueError, match="quantized already"):
        model.quantize(mode)


def test_a_reward_model_trains_its_head_too(tiny_configs, tmp_path):
    model = GemmaRewardModel(GemmaBackbone(tiny_configs["gemma2"], seed=3))
    model.enable_lora(rank=2)
    assert len(model.trainable_variables) == 3 * 7 * 2 + 1
    random_adapter(model)
    model.score.kernel.assign(np.full((16, 1), 0.3, np.float32))
    scores = to_host(model(INPUTS))
    model.save_adapter(tmp_path)
    again = GemmaRewardModel(GemmaBackbone(tiny_configs["gemma2"], seed=3), seed=9)
    again.load_adapter(tmp_path, "tuned")
    np.testing.assert_array_equal(to_host(again(INPUTS)), scores)
    model.save_to_preset(tmp_path / "merged")
    merged = GemmaRewardModel.from_preset(tmp_path / "merged")
    np.testing.assert_allclose(to_host(merged(INPUTS)), scores, atol=1e-5)


def test_saved_adapter_comes_back_bit_equal_and_a_saved_model_holds_the_sum(model, tmp_path):
    model.enable_lora(rank=3, alpha=5, rank_stabilized=True, dropout=0.1, target_layer_names=["k_proj", "up_proj"])
    random_adapter(model)
    adapted = logits(model)
    model.save_adapter(tmp_path / "adapter", base="somewhere/base")
    model.save_to_preset(tmp_path / "merged")
    again = GemmaCausalLM(GemmaBackbone(model.config, seed=3))
    again.load_adapter(tmp_path / "adapter", "tuned")
    assert again.adapters["tuned"] == model.adapters["default"]
    np.testing.assert_array_equal(logits(again), adapted)
    np.testing.assert_allclose(logits(GemmaCausalLM.from_preset(tmp_path / "merged")), adapted, atol=2e-5)
    other = GemmaCausalLM(GemmaBackbone(model.config.replace(hidden_dim=24)))
    with pytest.raises(CheckpointError, match="lora_A.weight.*expected floats of shape"):
        other.load_adapter(tmp_path / "adapter")
    assert not other.adapters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "`rank` must be an integer >= 1"),
        ({"alpha": -1.0}, "`alpha` must be a number > 0"),
        ({"alpha": "8"}, "`alpha` must be a number > 0"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
        ({"target_layer_names": ["q_proj", "head"]}, r"Received: \['head'\]"),
        ({"name": "a/b"}, "letters, digits"),
    ],
)
def test_options_out_of_range_are_refused_and_leave_no_trace(model, options, message):
    count = len(model.variables)
    with pytest.raises(ValueError, match=message):
        model.enable_lora(**options)
    assert len(model.variables) == count and len(model.trainable_variables) == count
