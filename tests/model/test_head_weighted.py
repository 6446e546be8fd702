"""A sum of log-probabilities with known weights: value and gradients by a formula in float64, and what is not computed
where nobody asks for it."""

import importlib

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, backends, head
from gemma_keras.backends import reference
from gemma_keras.random import generator

BACKEND = keras.backend.backend()
NATIVE = importlib.import_module(f"gemma_keras.backends.{BACKEND}.head")
ADDS_TO_THE_MATRIX = {"jax": "_matrix_product", "tensorflow": "_table_product", "torch": "_add_product"}[BACKEND]
VOCABULARY, TEMPERATURE = 23, 0.7


def normal(*shape, key):
    return generator(5, key).standard_normal(shape, dtype=np.float32)


HIDDEN, MATRIX = normal(3, 7, 5, key="hidden"), normal(VOCABULARY, 5, key="matrix")
TARGETS = generator(5, "targets").integers(0, VOCABULARY, (3, 7)).astype(np.int32)
WEIGHTS = normal(3, 7, key="weights")
WEIGHTS[1] = 0  # a row that only fills a shape up
WEIGHTS[2, 3:] = 0


class Table(keras.Model):
    """Hidden states and matrix, so that their gradients can be asked for."""

    def __init__(self, trains_matrix=True):
        super().__init__()
        self.hidden = self.add_weight(shape=HIDDEN.shape, initializer="zeros", name="hidden")
        self.matrix = self.add_weight(shape=MATRIX.shape, initializer="zeros", name="matrix", trainable=trains_matrix)
        self.hidden.assign(HIDDEN)
        self.matrix.assign(MATRIX)
        self.built = True

    def arguments(self):
        return ops.convert_to_tensor(self.hidden), ops.convert_to_tensor(self.matrix)


def by_formula(soft_cap):
    """total, log_probs, gradients of hidden and matrix: d log p(y) / d logits = one-hot(y) - softmax."""
    raw = HIDDEN.astype(np.float64) @ MATRIX.T
    capped = raw if soft_cap is None else soft_cap * np.tanh(raw / soft_cap)
    steepness = 1 if soft_cap is None else 1 - (capped / soft_cap) ** 2
    probs = np.exp(capped / TEMPERATURE)
    probs /= probs.sum(axis=-1, keepdims=True)
    log_probs = np.log(np.take_along_axis(probs, TARGETS[..., None], axis=-1))[..., 0]
    slopes = (np.eye(VOCABULARY)[TARGETS] - probs) * steepness / TEMPERATURE * WEIGHTS[..., None]
    return (log_probs * WEIGHTS).sum(), log_probs, slopes @ MATRIX, np.einsum("bmv,bmd->vd", slopes, HIDDEN)


def gradients_with(function, model, soft_cap, *chunk):
    """total, log_probs and gradients, of 3 times the total: the backward pass has a factor to multiply by."""

    def loss(targets, weights):
        total, log_probs = function(*model.arguments(), targets, weights, soft_cap, TEMPERATURE, *chunk)
        return 3.0 * total, {"total": total, "log_probs": log_probs}

    _, aux, gradients = backends.compile_gradients(loss, model)(TARGETS, WEIGHTS)
    return [backends.to_host(value) for value in (aux["total"], aux["log_probs"], *gradients)]


def assert_follows_the_formula(found, soft_cap):
    for ours, theirs, factor in zip(found, by_formula(soft_cap), (1, 1, 3, 3), strict=False):
        assert np.abs(ours - factor * theirs).max() < 1e-6 * max(1, np.abs(factor * theirs).max())


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 6, 7, 16])
def test_value_and_gradients_whatever_the_chunk(chunk):
    found = gradients_with(backends.weighted_log_prob, Table(), 3.0, chunk)
    assert len(found) == 4
    assert_follows_the_formula(found, 3.0)


@pytest.mark.parametrize("trains_matrix", [True, False])
@pytest.mark.parametrize("soft_cap", [None, 3.0])
def test_value_and_gradients_with_and_without_cap_and_matrix(soft_cap, trains_matrix):
    """As the head calls it, and by the reference."""
    model = Table(trains_matrix)
    for found in (
        gradients_with(head.weighted_log_prob, model, soft_cap),
        gradients_with(reference.weighted_log_prob, model, soft_cap, 4),
    ):
        assert len(found) == 3 + trains_matrix
        assert_follows_the_formula(found, soft_cap)


@pytest.fixture
def in_small_chunks(monkeypatch):
    monkeypatch.setattr(head, "DENSE_LOGITS", 64)
    monkeypatch.setattr(head, "LEAST_CHUNK", 6)


class Unasked(Exception):
    """Something was computed that nobody asked for."""


def unasked(*arguments):
    raise Unasked


def test_without_a_gradient_no_slope_is_computed(monkeypatch, in_small_chunks):
    monkeypatch.setattr(NATIVE, "_slope", unasked)
    model = Table()

    def function(targets, weights):
        return head.weighted_log_prob(*model.arguments(), targets, weights, 3.0, TEMPERATURE)

    found = backends.compile_forward(function, [model])(TARGETS, WEIGHTS)
    assert_follows_the_formula([backends.to_host(value) for value in found], 3.0)
    with pytest.raises(Unasked):
        gradients_with(head.weighted_log_prob, model, 3.0)


def test_under_a_frozen_matrix_fit_and_score_compute_no_gradient_of_it(monkeypatch, in_small_chunks):
    """Also on TensorFlow, whose tape in `fit` watches what is frozen, and whose last batch is of unknown size."""
    config = GemmaConfig(
        vocabulary_size=VOCABULARY, num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8, hidden_dim=16,
        intermediate_dim=32,
    )  # fmt: skip
    model = GemmaCausalLM(GemmaBackbone(config, seed=3))
    model.backbone.enable_lora(rank=2)
    model.compile(keras.optimizers.SGD(0.0))
    monkeypatch.setattr(NATIVE, ADDS_TO_THE_MATRIX, unasked)
    model.fit({"token_ids": TARGETS}, batch_size=2, verbose=0)

    def loss_of(batch):
        return ops.sum(model.score(batch, with_entropy=True)[0]), {}

    batch = {"token_ids": TARGETS, "padding_mask": TARGETS >= 0, "target_ids": TARGETS}
    _, _, gradients = backends.compile_gradients(loss_of, model)(batch)
    assert max(np.abs(backends.to_host(gradient)).max() for gradient in gradients) > 1e-3


def test_float16_multiplies_by_the_loss_scale_before_it_rounds(monkeypatch):
    """A slope of 1e-8 is 0 in float16, and 3e-4 after a loss scale of 32,768: so the present path is not taken."""
    monkeypatch.setattr(backends, "weighted_log_prob", unasked)
    hidden, matrix = (ops.convert_to_tensor(array.astype(np.float16)) for array in (HIDDEN, MATRIX))
    total, log_probs = head.weighted_log_prob(hidden, matrix, TARGETS, WEIGHTS, 3.0, TEMPERATURE)
    assert float(total) == pytest.approx(by_formula(3.0)[0], abs=1e-2)
    np.testing.assert_allclose(backends.to_host(log_probs), by_formula(3.0)[1], atol=1e-2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others know every shape")
@pytest.mark.parametrize("trains_matrix", [True, False])
def test_a_batch_of_unknown_size_and_an_outer_tape_give_the_same(trains_matrix, in_small_chunks):
    import tensorflow as tf

    matrix = tf.Variable(MATRIX, trainable=trains_matrix)
    signature = [tf.TensorSpec((None, None, 5)), tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None))]

    def value(hidden, targets, weights):
        found = head.weighted_log_prob(hidden, tf.convert_to_tensor(matrix), targets, weights, 3.0, TEMPERATURE)
        return 3.0 * found[0], found

    sources = [matrix] if trains_matrix else []

    @tf.function(input_signature=signature)
    def inner(hidden, targets, weights):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            total, found = value(hidden, targets, weights)
        return *found, *tape.gradient(total, [hidden, *sources])

    outer = tf.function(value, input_signature=signature)
    hidden = tf.convert_to_tensor(HIDDEN)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        total, found = outer(hidden, TARGETS, WEIGHTS)
    for results in (inner(hidden, TARGETS, WEIGHTS), (*found, *tape.gradient(total, [hidden, *sources]))):
        assert len(results) == 3 + trains_matrix
        assert_follows_the_formula([backends.to_host(value) for value in results], 3.0)


@pytest.mark.skipif(BACKEND != "torch", reason="the others have no backward pass to repeat")
def test_a_second_backward_pass_is_refused():
    total, _ = head.weighted_log_prob(*Table().arguments(), TARGETS, WEIGHTS)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="asked for twice: expected one backward pass.*Compute the loss anew"):
        total.backward()
