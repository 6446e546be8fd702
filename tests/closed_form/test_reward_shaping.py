"""Rewards that are cut and scaled, the entropy bonus by enumeration of all sequences, and a weight that is steered."""

import itertools

import numpy as np
import pytest
from keras import ops

from pipelines.algorithms import policy_losses
from pipelines.algorithms.reward_shaping import shaped_rewards, steered_weight, surprise

V = 3
THETA = np.random.default_rng(1).normal(size=(V + 1) * V)


def test_cut_then_scaled():
    rewards = np.array([-3.0, 0.5, 1.0, 9.0])
    assert shaped_rewards(rewards).tolist() == rewards.tolist()
    assert shaped_rewards(rewards, clip=2.0).tolist() == [-2.0, 0.5, 1.0, 2.0]
    cut = np.array([-2.0, 0.5, 1.0, 2.0])
    expected = (cut - cut.mean()) / cut.std()
    assert shaped_rewards(rewards, clip=2.0, whiten=True) == pytest.approx(expected)
    assert not shaped_rewards(np.full(3, 7.0), whiten=True).any()


def test_the_weight_moves_towards_the_target_by_two_percent_at_most():
    assert steered_weight(0.5, kl=2.0, target=2.0) == 0.5
    assert steered_weight(0.5, kl=2.2, target=2.0) == pytest.approx(0.5 * 1.01)
    assert steered_weight(0.5, kl=20.0, target=2.0) == pytest.approx(0.5 * 1.02)
    assert steered_weight(0.5, kl=0.0, target=2.0) == pytest.approx(0.5 * 0.98)
    assert steered_weight(0.5, kl=-9.0, target=2.0) > 0  # an estimate may be below 0


def tokens_of(length):
    return np.array(list(itertools.product(range(V), repeat=length)))


def places(tokens):
    rows = np.concatenate([np.zeros((len(tokens), 1), int), tokens[:, :-1] + 1], axis=1)
    return rows * V + tokens


def numpy_log_probs(flat, tokens):
    table = flat.reshape(V + 1, V)
    return (table - np.log(np.exp(table).sum(axis=1, keepdims=True))).reshape(-1)[places(tokens)]


def entropy(flat, tokens):
    whole = numpy_log_probs(flat, tokens).sum(axis=1)
    return -np.exp(whole) @ whole


@pytest.mark.parametrize("length", [1, 2])
def test_surprise_in_the_reward_has_the_gradient_of_the_entropy(gradient, length):
    tokens = tokens_of(length)
    mask, old = np.ones(tokens.shape, bool), numpy_log_probs(THETA, tokens)
    chance = np.exp(old.sum(axis=1))
    weighted = ops.convert_to_tensor(surprise(old, mask) * chance)

    def loss(flat):
        log_pi = ops.reshape(ops.log_softmax(ops.reshape(flat, (V + 1, V)), axis=-1), (-1,))
        log_probs = ops.reshape(ops.take(log_pi, places(tokens).reshape(-1)), tokens.shape)
        return policy_losses.reinforce_loss(log_probs, weighted, mask, response_count=1)

    step = 1e-5
    expected = [
        (entropy(THETA + step * e, tokens) - entropy(THETA - step * e, tokens)) / (2 * step) for e in np.eye(THETA.size)
    ]
    assert np.abs(-gradient(loss, THETA) - expected).max() < 1e-6
    assert np.abs(expected).max() > 1e-2


def test_padding_surprises_nobody():
    log_probs, mask = np.array([[-1.0, -2.0], [-3.0, -np.inf]]), np.array([[True, True], [True, False]])
    assert surprise(log_probs, mask).tolist() == [3.0, 3.0]
