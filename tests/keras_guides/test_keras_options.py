"""What Keras' own `compile`, `fit` and model functions offer, with a value for each option."""

import os

import keras
import numpy as np
import pytest

from gemma_keras.backends import to_host
from gemma_keras.models import GemmaCausalLM

RATE = 0.5
SLOW_ON_JAX = [pytest.mark.slow] if os.environ["KERAS_BACKEND"] == "jax" else []  # it compiles every operation
IDS = np.random.default_rng(5).integers(5, 360, (4, 12)).astype(np.int32)
BATCH = {"token_ids": IDS}


def trained(presets, optimizer=None, data=None, epochs=1, batch_size=4, dtype=None, **options):
    """Weights by name after some steps of gradient descent, and the history."""
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"], dtype=dtype)
    compile_names = ("run_eagerly", "jit_compile", "steps_per_execution", "loss")
    compile_options = {name: options.pop(name) for name in compile_names if name in options}
    model.compile(keras.optimizers.SGD(RATE) if optimizer is None else optimizer, **compile_options)
    data = BATCH if data is None else data
    history = model.fit(data, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **options).history
    return dict(model.backbone.named_arrays()), history


@pytest.fixture(scope="module")
def start(presets):
    return dict(GemmaCausalLM.from_preset(presets["code_gemma_2b_en"]).backbone.named_arrays())


@pytest.fixture(scope="module")
def plain(presets):
    """Two epochs of one step."""
    return trained(presets, epochs=2)


@pytest.fixture(scope="module")
def one_step(presets):
    return trained(presets)[0]


def assert_close(found, expected, atol=2e-6):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=atol, err_msg=name)


@pytest.mark.parametrize("option", [pytest.param(each, marks=SLOW_ON_JAX) for each in ("run_eagerly", "jit_compile")])
def test_how_a_step_is_run_changes_no_value(presets, plain, option):
    weights, history = trained(presets, epochs=2, **{option: option == "run_eagerly"})
    np.testing.assert_allclose(history["loss"], plain[1]["loss"], rtol=1e-5)
    assert history["loss"][1] < history["loss"][0]
    assert_close(weights, plain[0])


def test_two_steps_in_one_execution(presets):
    """Two batches an epoch, run together."""
    if keras.backend.backend() == "torch":
        with pytest.raises(ValueError, match="`steps_per_execution` must be 1 with the PyTorch backend"):
            trained(presets, batch_size=2, steps_per_execution=2)
        return
    apart = trained(presets, batch_size=2)
    together = trained(presets, batch_size=2, steps_per_execution=2)
    np.testing.assert_allclose(together[1]["loss"], apart[1]["loss"], rtol=1e-5)
    assert_close(together[0], apart[0])


def test_a_clipped_step_has_the_length_of_the_clip(presets, start, one_step):
    clip = 0.01
    weights, _ = trained(presets, keras.optimizers.SGD(RATE, clipnorm=clip))
    longest = 0.0
    for name, values in start.items():
        free, clipped = (np.linalg.norm(each[name] - values) for each in (one_step, weights))
        longest = max(longest, free)
        assert clipped == pytest.approx(min(free, RATE * clip), rel=1e-3, abs=1e-6), name
    assert longest > 2 * RATE * clip


def test_accumulated_gradients_are_one_step_of_their_mean(presets, one_step):
    """Rows without padding: two batches of two rows, together, are the batch of four."""
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=2)
    assert_close(trained(presets, optimizer, batch_size=2)[0], one_step, atol=1e-5)


def test_a_schedule_that_ends_at_zero_stands_still(presets, one_step):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [RATE, 0.0])
    assert_close(trained(presets, keras.optimizers.SGD(schedule), epochs=3)[0], one_step)


def test_a_moving_average_lies_between_the_steps(presets, one_step, plain):
    optimizer = keras.optimizers.SGD(RATE, use_ema=True, ema_momentum=0.25)
    weights, _ = trained(presets, optimizer, epochs=2)
    # The average starts at what the first step left.
    assert_close(weights, {name: 0.25 * one_step[name] + 0.75 * plain[0][name] for name in one_step}, atol=1e-5)


def test_rows_held_out_by_their_share_and_results_by_name(presets, start):
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    model.compile(keras.optimizers.SGD(0.0))
    texts = ["The universe", "is wide", "my name", "is Anna"]
    history = model.fit(texts, batch_size=2, validation_split=0.5, shuffle=False, verbose=0).history
    first, last = (model.evaluate(part, batch_size=2, verbose=0, return_dict=True) for part in (texts[:2], texts[2:]))
    assert set(first) == {"loss"}
    assert history["loss"][0] == pytest.approx(first["loss"], rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(last["loss"], rel=1e-5)
    assert first["loss"] != pytest.approx(last["loss"], rel=1e-3)


@pytest.mark.parametrize("dtype", ["mixed_float16"])
def test_float16_scales_its_loss(presets, plain, dtype):
    """Keras wraps the optimizer in a loss scale; the steps are those of float32 to float16's accuracy."""
    weights, history = trained(presets, dtype=dtype, epochs=2)
    np.testing.assert_allclose(history["loss"], plain[1]["loss"], rtol=5e-3)
    assert_close(weights, plain[0], atol=5e-3)


@pytest.mark.fault("Keras' own saving: weights, pickle, BackupAndRestore, ModelCheckpoint, threads")
def test_weights_and_configurations_make_the_same_model(presets, tmp_path, start):
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    expected = to_host(model(BATCH))
    model.save_weights(tmp_path / "model.weights.h5")
    for other in (GemmaCausalLM.from_config(model.get_config()), keras.models.clone_model(model)):
        assert other.config == model.config and other.tokenizer.model_proto == model.tokenizer.model_proto
        assert np.abs(to_host(other(BATCH)) - expected).max() > 1e-2  # weights of its own
        other.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(to_host(other(BATCH)), expected)
