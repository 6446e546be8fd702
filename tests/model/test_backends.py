"""Each backend's native operations against the plain `keras.ops` reference, forwards and backwards."""

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, backends
from gemma_keras.backends import reference
from gemma_keras.random import generator


def normal(*shape, key="x"):
    return generator(3, key).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
def test_attention_equals_reference_and_a_loop_over_heads(key_value_heads, soft_cap):
    queries, keys, values = (
        normal(2, 5, 4, 8, key="q"),
        normal(2, 7, key_value_heads, 8, key="k"),
        normal(2, 7, key_value_heads, 8, key="v"),
    )
    visible = generator(3, "m").random((2, 5, 7)) < 0.6
    visible[:, :, 0] = True
    expected = np.zeros((2, 5, 4, 8), np.float64)
    for row in range(2):
        for head in range(4):
            shared = head // (4 // key_value_heads)
            scores = queries[row, :, head].astype(np.float64) @ keys[row, :, shared].T
            scores = scores if soft_cap is None else soft_cap * np.tanh(scores / soft_cap)
            weights = np.where(visible[row], np.exp(scores), 0)
            expected[row, :, head] = weights / weights.sum(-1, keepdims=True) @ values[row, :, shared]
    arguments = [ops.convert_to_tensor(x) for x in (queries, keys, values, visible)]
    for function in (backends.attention, reference.attention):
        np.testing.assert_allclose(backends.to_host(function(*arguments, soft_cap)), expected, atol=1e-5)


def test_update_cache_writes_one_slot_and_leaves_the_rest():
    cache, new = normal(2, 6, 1, 4, key="c"), normal(2, 2, 1, 4, key="n")
    updated = backends.to_host(
        backends.update_cache(ops.convert_to_tensor(cache.copy()), ops.convert_to_tensor(new), 3)
    )
    expected = cache.copy()
    expected[:, 3:5] = new
    np.testing.assert_array_equal(updated, expected)


class Table(keras.Model):
    """Two weights, so that gradients of hidden states and matrix can be asked for."""

    def __init__(self, hidden, matrix):
        super().__init__()
        self.hidden = self.add_weight(shape=hidden.shape, initializer="zeros", name="hidden")
        self.matrix = self.add_weight(shape=matrix.shape, initializer="zeros", name="matrix")
        self.hidden.assign(hidden)
        self.matrix.assign(matrix)
        self.built = True


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("chunk", [1, 4, 7, 16])
def test_chunked_logsumexp_and_its_gradients_equal_the_dense_ones(chunk, soft_cap):
    model = Table(normal(2, 7, 5, key="h"), normal(11, 5, key="w"))
    weights = ops.convert_to_tensor(normal(2, 7, key="g"))

    def loss_with(function):
        def loss():
            total, entropy = function(
                ops.convert_to_tensor(model.hidden), ops.convert_to_tensor(model.matrix), soft_cap, 0.7, chunk
            )
            return ops.sum(total * weights), {"total": total, "entropy": entropy}

        return backends.compile_gradients(loss, model)()

    loss, aux, gradients = loss_with(backends.chunked_logsumexp)
    expected_loss, expected_aux, expected_gradients = loss_with(reference.chunked_logsumexp)
    np.testing.assert_allclose(float(loss), float(expected_loss), rtol=1e-5)
    for name in ("total", "entropy"):
        np.testing.assert_allclose(backends.to_host(aux[name]), backends.to_host(expected_aux[name]), atol=2e-5)
    for ours, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(backends.to_host(ours), backends.to_host(expected), atol=2e-5)


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 3.0])
def test_a_frozen_matrix_leaves_the_gradient_of_the_states_as_it_is(soft_cap, with_entropy):
    model = Table(normal(2, 7, 5, key="h"), normal(11, 5, key="w"))
    model.matrix.trainable = False
    weights = ops.convert_to_tensor(normal(2, 7, key="g"))

    def gradient_with(function):
        def loss():
            hidden, matrix = ops.convert_to_tensor(model.hidden), ops.convert_to_tensor(model.matrix)
            total, entropy = function(hidden, matrix, soft_cap, 0.7, 4, with_entropy)
            return ops.sum(total * weights), {"entropy": entropy} if with_entropy else {}

        _, aux, (gradient,) = backends.compile_gradients(loss, model)()
        return [backends.to_host(value) for value in (gradient, *aux.values())]

    for ours, expected in zip(
        gradient_with(backends.chunked_logsumexp), gradient_with(reference.chunked_logsumexp), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_update_clips_to_the_global_norm_and_skips_what_is_not_finite():
    model = Table(np.zeros((1, 1, 2), np.float32), np.zeros((1, 2), np.float32))
    optimizer = keras.optimizers.SGD(1.0)
    update = backends.compile_update(optimizer, model)
    gradients = [
        ops.convert_to_tensor(np.array([[[3.0, 0.0]]], np.float32)),
        ops.convert_to_tensor(np.array([[0.0, 4.0]], np.float32)),
    ]
    norm = update(gradients, scale=2.0, clip_norm=5.0)
    assert float(norm) == pytest.approx(10.0)
    np.testing.assert_allclose(backends.to_host(model.hidden.value), [[[-3.0, 0.0]]], atol=1e-6)
    np.testing.assert_allclose(backends.to_host(model.matrix.value), [[0.0, -4.0]], atol=1e-6)
    bad = [ops.convert_to_tensor(np.array([[[np.nan, 0.0]]], np.float32)), gradients[1]]
    assert np.isnan(float(update(bad, scale=1.0, clip_norm=5.0)))
    np.testing.assert_allclose(backends.to_host(model.matrix.value), [[0.0, -4.0]], atol=1e-6)
    assert int(optimizer.iterations) == 1


def test_compiled_forward_reads_the_weights_of_the_moment(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=1))
    forward = backends.compile_forward(lambda ids: model({"token_ids": ids}), [model])
    ids = np.array([[2, 5, 6, 7]], np.int32)
    before = backends.to_host(forward(ids)).copy()
    model.backbone.final_norm.scale.assign(backends.to_host(model.backbone.final_norm.scale.value) + 1.0)
    np.testing.assert_allclose(backends.to_host(forward(ids)), 2 * before, rtol=1e-5)
