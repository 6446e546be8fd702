"""Gradients summed up over micro-batches, and the guarded optimizer step, against sums and formulas by hand."""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaRewardModel, backends
from gemma_keras.random import generator

SHAPES = ((3, 4), (4,), (4, 2))
STEPS = 20
fused = pytest.mark.skipif(keras.backend.backend() != "torch", reason="the other backends compile Keras' own update")


class Weights(keras.Model):
    """Two matrices and a vector, random, each with a name."""

    def __init__(self, dtype="float32"):
        super().__init__()
        for name, shape in zip("abc", SHAPES, strict=True):
            weight = self.add_weight(shape=shape, initializer="zeros", name=name, dtype=dtype)
            weight.assign(generator(5, name).standard_normal(shape, dtype=np.float32))
        self.built = True


def draws(key):
    """A gradient for each weight."""
    return [generator(7, f"{key} {i}").standard_normal(shape, dtype=np.float32) for i, shape in enumerate(SHAPES)]


def arrays_of(variables):
    return [np.array(backends.to_host(variable.value)) for variable in variables]


def adamw_by_hand(weights, learning_rates, decays, epsilon=1e-7):
    """Weights after one step a learning rate, in float64.

    Keras adds epsilon to the root of the second moment as it is, outside the bias correction.
    """
    weights = [weight.astype(np.float64) for weight in weights]
    firsts, seconds = ([np.zeros(shape) for shape in SHAPES] for _ in range(2))
    for step, rate in enumerate(learning_rates, start=1):
        for i, gradient in enumerate(draws(step)):
            firsts[i] = 0.9 * firsts[i] + 0.1 * gradient
            seconds[i] = 0.98 * seconds[i] + 0.02 * np.square(gradient, dtype=np.float64)
            corrected = rate * np.sqrt(1 - 0.98**step) / (1 - 0.9**step)
            weights[i] *= 1 - rate * decays[i]
            weights[i] -= corrected * firsts[i] / (np.sqrt(seconds[i]) + epsilon)
    return weights


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_twenty_updates_by_hand(decay):
    model, rates = Weights(), [0.01 * step for step in range(STEPS)]
    kind = {"learning_rate": 1.0, "beta_2": 0.98, "epsilon": 0.05}
    optimizer = keras.optimizers.AdamW(weight_decay=decay, **kind) if decay else keras.optimizers.Adam(**kind)
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
    update, start = backends.compile_update(optimizer, model), arrays_of(model.trainable_variables)
    for step, rate in enumerate(rates, start=1):
        optimizer.learning_rate = rate
        gradients = draws(step)
        norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients))
        found = update([ops.convert_to_tensor(2 * gradient) for gradient in gradients], scale=0.5, clip_norm=100.0)
        assert float(found) == pytest.approx(norm, rel=1e-6)
    expected = adamw_by_hand(start, rates, [decay, 0.0, decay], epsilon=0.05)
    for ours, theirs in zip(arrays_of(model.trainable_variables), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert int(optimizer.iterations) == STEPS


@pytest.fixture
def fused_passes(monkeypatch):
    """Grows by one at every fused pass over the weights."""
    from gemma_keras.backends.torch import fused_adam

    passes, adam = [], fused_adam.adam
    monkeypatch.setattr(fused_adam, "adam", lambda *args, **options: passes.append(adam(*args, **options)))
    return passes


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.3),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
    "clipped and accumulated": lambda: keras.optimizers.AdamW(0.01, clipnorm=0.5, gradient_accumulation_steps=4),
    "averaged": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
}


@fused
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_updates_equal_those_of_keras_with_every_variable_of_the_optimizer(name, fused_passes):
    ours, theirs = Weights(), Weights()
    optimizer, plain = OPTIMIZERS[name](), OPTIMIZERS[name]()
    update = backends.compile_update(optimizer, ours)
    plain.build(theirs.trainable_variables)
    for step in range(STEPS):
        update([ops.convert_to_tensor(gradient) for gradient in draws(step)])
        plain.apply([ops.convert_to_tensor(gradient) for gradient in draws(step)], theirs.trainable_variables)
    pairs = zip([*ours.variables, *optimizer.variables], [*theirs.variables, *plain.variables], strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(*arrays_of([found, expected]), rtol=2e-6, atol=2e-7)
    expected_passes = {"amsgrad": 0, "momentum": 0, "clipped and accumulated": STEPS // 4}
    assert len(fused_passes) == expected_passes.get(name, STEPS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["adamw", "clipped and accumulated", "averaged", "momentum"])
def test_a_skipped_update_changes_no_bit_of_weights_moments_and_counter(name, bad):
    model, optimizer = Weights(), OPTIMIZERS[name]()
    update = backends.compile_update(optimizer, model)
    update([ops.convert_to_tensor(gradient) for gradient in draws(0)], clip_norm=1.0)
    before = [array.tobytes() for array in arrays_of([*model.variables, *optimizer.variables])]
    gradients = draws(1)
    gradients[1][2] = bad
    assert not np.isfinite(float(update([ops.convert_to_tensor(gradient) for gradient in gradients], clip_norm=1.0)))
    assert [array.tobytes() for array in arrays_of([*model.variables, *optimizer.variables])] == before
    update([ops.convert_to_tensor(gradient) for gradient in draws(2)])
    assert int(optimizer._iterations) == 2


def test_sums_of_gradients_by_hand():
    model = Weights()

    def loss(x):
        a, b, _ = (ops.convert_to_tensor(weight) for weight in model.trainable_variables)
        return ops.sum(ops.matmul(x, a) * b), {"rows": ops.sum(x)}

    program, sums, losses = backends.compile_gradients(loss, model), backends.zero_gradients(model), []
    inputs = [generator(9, key).standard_normal((5, 3), dtype=np.float32) for key in "xyz"]
    for x in inputs:
        value, aux, sums = program(x, sums=sums)
        losses.append(value)
        assert float(aux["rows"]) == pytest.approx(x.sum(), abs=1e-5)
    a, b, _ = arrays_of(model.trainable_variables)
    total = sum(inputs).sum(axis=0)
    expected = [np.outer(total, b), total @ a, np.zeros((4, 2))]
    for found, by_hand in zip(sums, expected, strict=True):
        np.testing.assert_allclose(backends.to_host(found), by_hand, atol=1e-5)
    for found, x in zip(losses, inputs, strict=True):
        assert float(found) == pytest.approx(float(((x @ a) * b).sum()), abs=1e-4)
    _, _, alone = program(inputs[0])
    np.testing.assert_allclose(backends.to_host(alone[1]), inputs[0].sum(axis=0) @ a, atol=1e-5)


def small_model(kind, tiny_configs):
    return kind(GemmaBackbone(tiny_configs["gemma3"], seed=5))


def fitted(kind, tiny_configs, optimizer):
    """Weights after three steps of Keras' `fit`, and the optimizer's variables."""
    model, ids = small_model(kind, tiny_configs), generator(3, "ids").integers(3, 97, (6, 2, 12)).astype(np.int32)
    model.compile(optimizer)
    if kind is GemmaCausalLM:
        model.fit(
            {"token_ids": ids[:, 0], "padding_mask": np.ones((6, 12), bool)}, batch_size=2, shuffle=False, verbose=0
        )
    else:
        x = {"token_ids": ids, "padding_mask": np.ones((6, 2, 12), bool)}
        model.fit(x, np.zeros(6, np.float32), batch_size=2, shuffle=False, verbose=0)
    return arrays_of([*model.trainable_variables, *optimizer.variables])


@fused
@pytest.mark.parametrize("kind", [GemmaCausalLM, GemmaRewardModel])
def test_fit_updates_in_one_pass_what_keras_updates_in_ten(kind, tiny_configs, monkeypatch, fused_passes):
    optimizer = keras.optimizers.AdamW(0.01)
    ours = fitted(kind, tiny_configs, optimizer)
    assert len(fused_passes) == 3
    assert "_parallel_update_step" not in vars(optimizer)
    monkeypatch.setattr(backends, "fast_updates", contextlib.nullcontext)
    theirs = fitted(kind, tiny_configs, keras.optimizers.AdamW(0.01))
    assert len(fused_passes) == 3
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@fused
def test_what_the_fused_pass_does_not_know_stays_keras_own(monkeypatch):
    from gemma_keras.backends.torch import fused_adam

    class Halved(keras.optimizers.Adam):
        """A user's optimizer with a step of its own."""

        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate / 2)

    monkeypatch.setattr(fused_adam, "adam", None)  # to be called is an error
    for optimizer in (Halved(0.01), keras.optimizers.Adam(0.01, amsgrad=True), keras.optimizers.SGD(0.01)):
        model = Weights()
        before = arrays_of(model.variables)
        backends.compile_update(optimizer, model)([ops.convert_to_tensor(gradient) for gradient in draws(0)])
        assert not np.array_equal(before[0], arrays_of(model.variables)[0])
    half, optimizer = Weights("bfloat16"), keras.optimizers.Adam(0.01)
    gradients = [ops.cast(gradient, "bfloat16") for gradient in draws(0)]
    backends.compile_update(optimizer, half)(gradients)
    assert int(optimizer.iterations) == 1
