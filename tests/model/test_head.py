"""Log-probabilities of targets against numpy in float64 from the same hidden states, in both precisions and on both
paths."""

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import backends, head
from gemma_keras.random import generator

VOCABULARY = 262_144
TEMPERATURE = 0.7


def states_and_matrix(positions, vocabulary, width, largest, seed=0):
    """float32 arrays that bfloat16 holds exactly, and targets.

    In every other position the target is a token of logit `largest`, far above the others; elsewhere it is any token.
    """
    random = generator(seed, "head")
    hidden = random.standard_normal((*positions, width), dtype=np.float32)
    matrix = random.standard_normal((vocabulary, width), dtype=np.float32)
    matrix *= largest / 2 / (hidden @ matrix.T).max()
    target_ids = random.permutation(vocabulary)[: hidden[..., 0].size].reshape(positions).astype(np.int32)
    sure = hidden[:, ::2]
    matrix[target_ids[:, ::2]] = sure * (largest / np.square(sure).sum(axis=-1, keepdims=True))
    return *(array.astype("bfloat16").astype(np.float32) for array in (hidden, matrix)), target_ids


def exact(hidden, matrix, target_ids, soft_cap=None, temperature=1.0):
    """Log-probabilities and entropy in float64."""
    logits = hidden.astype(np.float64) @ matrix.T.astype(np.float64)
    logits = (logits if soft_cap is None else soft_cap * np.tanh(logits / soft_cap)) / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits)
    mass = powers.sum(axis=-1)
    log_probs = np.take_along_axis(logits, target_ids[..., None], axis=-1)[..., 0] - np.log(mass)
    return log_probs, np.log(mass) - (powers * logits).sum(axis=-1) / mass


def found(hidden, matrix, target_ids, soft_cap=None, temperature=1.0, dtype="float32", with_entropy=True):
    """What the library computes, in one compiled program."""

    def function(hidden, matrix, target_ids):
        hidden, matrix = ops.cast(hidden, dtype), ops.cast(matrix, dtype)
        log_probs, entropy = head.target_log_probs(hidden, matrix, target_ids, soft_cap, temperature, with_entropy)
        return [log_probs, entropy] if with_entropy else [log_probs]

    return [backends.to_host(value) for value in backends.compile_forward(function, [])(hidden, matrix, target_ids)]


@pytest.fixture
def path(request, monkeypatch):
    """Dense as shipped, or chunks of some 16 positions, the last one smaller."""
    if request.param == "chunked":
        monkeypatch.setattr(head, "DENSE_LOGITS", 1 << 23)
        monkeypatch.setattr(head, "LEAST_CHUNK", 16)
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("path", ["dense", "chunked"], indirect=True)
def test_log_probs_are_those_of_float64_and_never_above_zero(path, dtype):
    """Logits up to 30 over 262,144 tokens; a logsumexp of bfloat16 logits is off by 0.06, and above 0 half the
    time."""
    hidden, matrix, target_ids = states_and_matrix((2, 20), VOCABULARY, 8, largest=30)
    log_probs, entropy = found(hidden, matrix, target_ids, dtype=dtype)
    expected_log_probs, expected_entropy = exact(hidden, matrix, target_ids)
    assert log_probs.dtype == entropy.dtype == np.float32
    assert expected_log_probs.max() > -0.1 > -20 > expected_log_probs.min()
    assert log_probs.max() <= 0
    assert np.abs(log_probs - expected_log_probs).max() < 1e-4
    assert np.abs(entropy - expected_entropy).max() < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("path", ["dense", "chunked"], indirect=True)
def test_temperature_and_soft_cap_hold_on_both_paths(path, soft_cap, dtype, monkeypatch):
    if path == "chunked":
        monkeypatch.setattr(head, "DENSE_LOGITS", 64)
        monkeypatch.setattr(head, "LEAST_CHUNK", 6)
    hidden, matrix, target_ids = states_and_matrix((2, 7), 23, 5, largest=6)
    expected = exact(hidden, matrix, target_ids, soft_cap, TEMPERATURE)
    for ours, theirs in zip(found(hidden, matrix, target_ids, soft_cap, TEMPERATURE, dtype), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    (alone,) = found(hidden, matrix, target_ids, soft_cap, TEMPERATURE, dtype, with_entropy=False)
    np.testing.assert_allclose(alone, expected[0], atol=2e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others know every shape")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_of_unknown_size_gives_the_same(dtype):
    import tensorflow as tf

    hidden, matrix, target_ids = states_and_matrix((3, 7), 23, 5, largest=6)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 5)), tf.TensorSpec((None, None), tf.int32)])
    def function(hidden, target_ids):
        table = ops.cast(matrix, dtype)
        return head.target_log_probs(ops.cast(hidden, dtype), table, target_ids, 3.0, TEMPERATURE)

    for ours, theirs in zip(
        function(hidden, target_ids), exact(hidden, matrix, target_ids, 3.0, TEMPERATURE), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


class HalfTable(keras.Model):
    """A bfloat16 matrix and hidden states, so that their gradients can be asked for."""

    def __init__(self, hidden, matrix, trains_matrix):
        super().__init__()
        self.hidden = self.add_weight(shape=hidden.shape, initializer="zeros", name="hidden", dtype="bfloat16")
        self.matrix = self.add_weight(
            shape=matrix.shape, initializer="zeros", name="matrix", dtype="bfloat16", trainable=trains_matrix
        )
        self.hidden.assign(hidden)
        self.matrix.assign(matrix)
        self.built = True


@pytest.mark.parametrize("trains_matrix", [True, False])
@pytest.mark.parametrize("path", ["dense", "chunked"], indirect=True)
def test_gradients_in_bfloat16_are_those_of_float64(path, trains_matrix, monkeypatch):
    """To the rounding of their slopes: d log p(y) / d logits = one-hot(y) - softmax."""
    if path == "chunked":
        monkeypatch.setattr(head, "DENSE_LOGITS", 64)
        monkeypatch.setattr(head, "LEAST_CHUNK", 6)
    hidden, matrix, target_ids = states_and_matrix((2, 7), 23, 5, largest=6)
    weights = generator(0, "weights").standard_normal(target_ids.shape, dtype=np.float32)
    model = HalfTable(hidden, matrix, trains_matrix)

    def loss(target_ids, weights):
        states, table = ops.convert_to_tensor(model.hidden), ops.convert_to_tensor(model.matrix)
        log_probs, _ = head.target_log_probs(states, table, target_ids, 3.0, TEMPERATURE, with_entropy=False)
        return ops.sum(log_probs * weights), {}

    _, _, gradients = backends.compile_gradients(loss, model)(target_ids, weights)
    raw = hidden.astype(np.float64) @ matrix.T
    capped = 3.0 * np.tanh(raw / 3.0)
    probs = np.exp(capped / TEMPERATURE)
    probs /= probs.sum(axis=-1, keepdims=True)
    slopes = (np.eye(23)[target_ids] - probs) * (1 - (capped / 3.0) ** 2) / TEMPERATURE * weights[..., None]
    expected = [slopes @ matrix, np.einsum("bmv,bmd->vd", slopes, hidden)]
    assert len(gradients) == 1 + trains_matrix
    for ours, theirs in zip(gradients, expected, strict=False):
        ours = np.asarray(backends.to_host(ops.cast(ours, "float32")), np.float64)
        assert np.abs(ours - theirs).max() < 2**-7 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("least", "dense", "chunk"), [(6, 322, None), (6, 64, 3), (100, 64, 7), (1, 300, 3), (1, 1, 1)]
)
def test_positions_are_cut_into_chunks_once_their_logits_outgrow_the_limit(least, dense, chunk, monkeypatch):
    """(2, 7) positions of 23 tokens are 322 logits; a chunk takes at least `least` positions of both rows together."""
    asked = []

    def chunked(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy):
        asked.append(chunk)
        return target_ids, None

    monkeypatch.setattr(head, "DENSE_LOGITS", dense)
    monkeypatch.setattr(head, "LEAST_CHUNK", least)
    monkeypatch.setattr(backends, "chunked_log_probs", chunked)
    head.target_log_probs(*map(ops.convert_to_tensor, states_and_matrix((2, 7), 23, 5, largest=6)))
    assert asked == ([] if chunk is None else [chunk])


class OfUnknownSize:
    """An array whose number of rows and positions is not known while a program is traced."""

    def __init__(self, values):
        self.values, self.shape = values, (None, None, values.shape[-1])

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.mark.parametrize("with_entropy", [True, False])
def test_rows_of_unknown_number_are_flattened_into_chunks_of_positions(with_entropy, monkeypatch):
    monkeypatch.setattr(head, "DENSE_LOGITS", 64)
    monkeypatch.setattr(head, "LEAST_CHUNK", 6)
    hidden, matrix, target_ids = states_and_matrix((3, 7), 23, 5, largest=6)
    expected = exact(hidden, matrix, target_ids, 3.0, TEMPERATURE)
    asked, chunked = [], backends.chunked_log_probs
    monkeypatch.setattr(backends, "chunked_log_probs", lambda *rest: asked.append(rest[5]) or chunked(*rest))
    arguments = ops.convert_to_tensor(matrix), target_ids, 3.0, TEMPERATURE, with_entropy
    log_probs, entropy = head.target_log_probs(OfUnknownSize(hidden), *arguments)
    assert asked == [6]
    np.testing.assert_allclose(backends.to_host(log_probs), expected[0], atol=2e-6)
    assert (entropy is None) != with_entropy
    if with_entropy:
        np.testing.assert_allclose(backends.to_host(entropy), expected[1], atol=2e-6)
