"""Each backend's native operations against the plain `keras.ops` reference, forwards and backwards."""

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, backends
from gemma_keras.backends import reference
from gemma_keras.backends.product_peak import best_of_products
from gemma_keras.layers.rotary import rotary_tables
from gemma_keras.program_shapes import counting_shapes
from gemma_keras.random import generator


def normal(*shape, key="x"):
    return generator(3, key).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("time", [1, 5])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
def test_attention_equals_reference_and_a_loop_over_heads(key_value_heads, soft_cap, time):
    queries, keys, values = (
        normal(2, time, 4, 8, key="q"),
        normal(2, 7, key_value_heads, 8, key="k"),
        normal(2, 7, key_value_heads, 8, key="v"),
    )
    visible = generator(3, "m").random((2, time, 7)) < 0.6
    visible[:, :, 0] = True
    expected = np.zeros((2, time, 4, 8), np.float64)
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


@pytest.mark.parametrize("module", [backends, reference])
def test_norm_and_rotation_by_hand(module):
    x, scale, positions = 3 * normal(2, 5, 4, 8), normal(8, key="s"), np.arange(10).reshape(2, 5)
    exact = x.astype(np.float64)
    normed = exact / np.sqrt(np.square(exact).mean(axis=-1, keepdims=True) + 0.1) * (1.0 + scale)
    found = module.rms_norm(ops.convert_to_tensor(x), ops.convert_to_tensor(scale), 0.1)
    np.testing.assert_allclose(backends.to_host(found), normed, atol=1e-5)
    # Each pair of a first and a second half is a complex number that turns by its angle.
    angles = positions[:, :, None, None] / 2 * 100.0 ** -np.array([0, 0.25, 0.5, 0.75])
    turned = (exact[..., :4] + 1j * exact[..., 4:]) * np.exp(1j * angles)
    tables = rotary_tables(ops.convert_to_tensor(positions), 8, 100.0, 2.0)
    found = module.rotate(ops.convert_to_tensor(x), *tables)
    np.testing.assert_allclose(backends.to_host(found), np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


@pytest.mark.parametrize("module", [backends, reference])
def test_gated_gelu_by_hand(module):
    gate, x = (3 * normal(2, 5, 8, key=key) for key in "gx")
    exact = gate.astype(np.float64)
    gelu = 0.5 * exact * (1 + np.tanh(np.sqrt(2 / np.pi) * (exact + 0.044715 * exact**3)))
    found = module.gated_gelu(*map(ops.convert_to_tensor, (gate, x)))
    np.testing.assert_allclose(backends.to_host(found), gelu * x, atol=1e-5)


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


TARGETS = np.array([[0, 1, 2, 3, 4, 10, 10], [5, 6, 7, 8, 9, 0, 3]], np.int32)


def log_probs_with(function, model, soft_cap, chunk, with_entropy):
    """Log-probabilities, entropy, and gradients by a sum of the former with given weights."""
    weights = ops.convert_to_tensor(normal(2, 7, key="g"))

    def loss():
        hidden, matrix = ops.convert_to_tensor(model.hidden), ops.convert_to_tensor(model.matrix)
        log_probs, entropy = function(
            hidden, matrix, ops.convert_to_tensor(TARGETS), soft_cap, 0.7, chunk, with_entropy
        )
        return ops.sum(log_probs * weights), [log_probs, entropy] if with_entropy else [log_probs]

    _, aux, gradients = backends.compile_gradients(loss, model)()
    return [backends.to_host(value) for value in (*aux, *gradients)]


@pytest.mark.parametrize("module", [backends, reference])
@pytest.mark.parametrize("shape", [(2, 1, 5, 3), (2, 5, 3), (5, 3)])
def test_a_product_and_its_gradients_by_hand(shape, module):
    model, slope = Table(normal(*shape), normal(3, 4, key="w")), normal(*shape[:-1], 4, key="s")

    def loss():
        product = module.linear(ops.convert_to_tensor(model.hidden), model.matrix)
        return ops.sum(product * ops.convert_to_tensor(slope)), [product]

    _, (product,), (of_x, of_kernel) = backends.compile_gradients(loss, model)()
    np.testing.assert_allclose(backends.to_host(product), normal(*shape) @ normal(3, 4, key="w"), atol=1e-5)
    np.testing.assert_allclose(backends.to_host(of_x), slope @ normal(3, 4, key="w").T, atol=1e-5)
    expected = normal(*shape).reshape(-1, 3).T @ slope.reshape(-1, 4)
    np.testing.assert_allclose(backends.to_host(of_kernel), expected, atol=1e-5)


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("chunk", [1, 4, 7, 16])
def test_chunked_log_probs_and_their_gradients_equal_the_dense_ones(chunk, soft_cap):
    model = Table(normal(2, 7, 5, key="h"), normal(11, 5, key="w"))
    found, expected = (
        log_probs_with(of.chunked_log_probs, model, soft_cap, chunk, with_entropy=True) for of in (backends, reference)
    )
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 3.0])
def test_a_frozen_matrix_leaves_the_gradient_of_the_states_as_it_is(soft_cap, with_entropy):
    model = Table(normal(2, 7, 5, key="h"), normal(11, 5, key="w"))
    model.matrix.trainable = False
    found, expected = (
        log_probs_with(of.chunked_log_probs, model, soft_cap, 4, with_entropy) for of in (backends, reference)
    )
    assert len(found) == len(expected) == 2 + with_entropy
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_reference_equals_a_softmax_in_float64():
    hidden, matrix = normal(2, 7, 5, key="h"), normal(11, 5, key="w")
    arguments = [ops.convert_to_tensor(array) for array in (hidden, matrix, TARGETS)]
    log_probs, entropy = reference.chunked_log_probs(*arguments, 3.0, 0.7, 7)
    logits = 3.0 * np.tanh(hidden.astype(np.float64) @ matrix.T / 3.0) / 0.7
    table = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = np.take_along_axis(table, TARGETS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(backends.to_host(log_probs), expected, atol=1e-5)
    np.testing.assert_allclose(backends.to_host(entropy), -(np.exp(table) * table).sum(axis=-1), atol=1e-5)


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


def test_shapes_are_counted_by_program_and_not_by_value():
    """A tree's leaves, a number among them; two programs of one name count for themselves."""
    with counting_shapes() as counts:
        for rows in ((1, 2, 2), (3,)):
            double = backends.compile_forward(lambda tree, times: tree["x"] * times, [], "double")
            for count in rows:
                found = double({"x": np.full((count, 2), count, np.float32)}, np.float32(count))
                np.testing.assert_array_equal(backends.to_host(found), np.full((count, 2), count**2))
    assert counts == {"double": 2}


def test_a_product_is_timed_on_the_backend():
    for dtype in ("float32", "bfloat16"):
        assert 0 < best_of_products(16, dtype, repeats=1) < 60


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="how torch multiplies")
def test_products_by_onednn_are_those_of_torch(monkeypatch):
    """Forwards and backwards, with a soft cap and without; and only where they multiply."""
    import torch

    from gemma_keras.backends.torch import products

    if not products._can_multiply():
        pytest.skip("this torch has no such operator")
    hidden, matrix = normal(3, 7, 24), normal(40, 24, key="m")
    ids, weights = generator(3, "ids").integers(0, 40, (3, 7)), np.abs(normal(3, 7, key="w"))
    made, multiply = [], products.onednn_product

    def gradients(soft_cap):
        tensors = [torch.tensor(each, requires_grad=True) for each in (hidden, matrix)]
        arguments = (*tensors, torch.tensor(ids))
        total, _ = backends.weighted_log_prob(*arguments, torch.tensor(weights), soft_cap, 0.7, 4)
        log_probs, entropy = backends.chunked_log_probs(*arguments, soft_cap, 0.7, 4)
        (total + 0.5 * log_probs.sum()).backward()
        return [each.detach().numpy() for each in (log_probs, entropy, total, *(each.grad for each in tensors))]

    monkeypatch.setattr(products, "onednn_product", lambda *each: made.append(each) or multiply(*each))
    for soft_cap in (None, 2.0):
        expected = gradients(soft_cap)
        assert not made, "too small to be worth it"
        monkeypatch.setattr(products, "LEAST", 0)
        monkeypatch.setattr(products, "is_from_intel", lambda: False)
        for ours, theirs in zip(gradients(soft_cap), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))
        # Of two chunks each: logits and slopes at once, and logits, logits again and slopes.
        assert len(made) == 2 * 2 + 2 * 3
        made.clear()
        monkeypatch.setattr(products, "is_from_intel", lambda: True)
        gradients(soft_cap)
        assert not made
        monkeypatch.setattr(products, "LEAST", 1 << 24)
    monkeypatch.setattr(products, "onednn_product", lambda x, matrix: x @ matrix.t() + 1)
    assert not products._can_multiply.__wrapped__()
