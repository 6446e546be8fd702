"""Importance weights between a sampler and the policy that learns, by enumeration of every response of two tokens.

The problem: 3 tokens, softmax policies p (from logits THETA) and q (the sampler, from others), a reward a response.
"""

import itertools

import numpy as np
import pytest
from keras import ops

from pipelines.algorithms import importance, policy_losses
from pipelines.stages.policy_optimization.token_loss import TokenLoss
from pipelines.stages.policy_optimization.updates import policy_loss

NUMBERS = np.random.default_rng(1)
THETA, SAMPLER = NUMBERS.normal(size=(2, 4, 3))  # of the first token; of the second after each first one
REWARDS = np.array([0.3, -1.2, 2.0, 0.7, -0.4, 1.1, -2.0, 0.9, 0.1])
RESPONSES = np.array(list(itertools.product(range(3), repeat=2)))
ALL, UNLIMITED = np.ones((9, 2), bool), 1e9


def token_log_probs(logits):
    """(9, 2): of both tokens of each response."""
    found = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    first, second = RESPONSES.T
    return np.stack([found[0, first], found[1 + first, second]], axis=1)


P, Q = token_log_probs(THETA), token_log_probs(SAMPLER)


def scores(position):
    """(9, 4, 3): gradient of the log-probability of each response's token at a position, by hand: e_token - p."""
    found = np.zeros((9, 4, 3))
    for row, response in enumerate(RESPONSES):
        place = 0 if position == 0 else 1 + response[0]
        found[row, place] = np.eye(3)[response[position]] - np.exp(THETA[place]) / np.exp(THETA[place]).sum()
    return found


def expected(chance, weights):
    """Sum over responses of chance, reward, and the weighted gradients of both tokens."""
    gradients = np.stack([scores(0), scores(1)], axis=1) * np.asarray(weights)[..., None, None]
    return np.einsum("b,bij->ij", chance * REWARDS, gradients.sum(axis=1))


def weights_of(level, limit=UNLIMITED):
    tensors = map(ops.convert_to_tensor, (P, Q))  # which are float64 under the fixture `gradient`
    found = importance.truncated_importance_weights(*tensors, ALL, limit, level)
    return tuple(map(ops.convert_to_numpy, found))


def found_gradient(gradient, weights, clip_range=None):
    """Of the library's loss, over all responses as the sampler draws them."""
    chance = np.exp(Q.sum(axis=1))
    first, second = RESPONSES.T

    def loss(logits):
        log_p = ops.log_softmax(logits, axis=-1)
        flat = ops.reshape(log_p, (-1,))
        log_probs = ops.stack([ops.take(flat, first), ops.take(flat, 3 * (1 + first) + second)], axis=1)
        arguments = {"response_count": 1, "importance_weights": weights}
        if clip_range is None:
            return policy_losses.reinforce_loss(log_probs, chance * REWARDS, ALL, **arguments)
        return policy_losses.clipped_sequence_loss(log_probs, P, chance * REWARDS, ALL, clip_range, **arguments)[0]

    return -gradient(loss, THETA)


@pytest.mark.parametrize("clip_range", [None, 0.2])
def test_whole_ratios_give_the_gradient_under_the_policy(gradient, clip_range):
    truth = expected(np.exp(P.sum(axis=1)), np.ones((9, 2)))
    found = found_gradient(gradient, weights_of("sequence")[0], clip_range)
    assert np.abs(found - truth).max() < 1e-12
    assert np.abs(found_gradient(gradient, None, clip_range) - truth).max() > 0.05


@pytest.mark.parametrize("clip_range", [None, 0.2])
def test_ratios_of_tokens_correct_each_token_and_leave_the_rest_to_the_sampler(gradient, clip_range):
    """The first token's are drawn as by p, what follows as by q; before the second stands what q drew."""
    (p_first, p_second), (q_first, q_second) = np.exp(P).T, np.exp(Q).T
    truth = expected(p_first * q_second, [[1, 0]]) + expected(q_first * p_second, [[0, 1]])
    found = found_gradient(gradient, weights_of("token")[0], clip_range)
    assert np.abs(found - truth).max() < 1e-12
    assert np.abs(found - expected(np.exp(P.sum(axis=1)), np.ones((9, 2)))).max() > 1e-3


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_baseline_changes_nothing_in_the_mean(gradient, level):
    weights = weights_of(level)[0][..., None, None] * np.stack([scores(0), scores(1)], axis=1)
    assert np.abs(np.einsum("b,btij->ij", np.exp(Q.sum(axis=1)), weights)).max() < 1e-12


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_truncated_from_above_alone(level):
    free, _ = weights_of(level)
    weights, is_truncated = weights_of(level, 1.25)
    assert is_truncated.any() and not is_truncated.all() and free.min() < 0.8
    np.testing.assert_array_equal(is_truncated, free > 1.25)
    np.testing.assert_array_equal(weights, np.where(free > 1.25, np.float64(1.25).astype(weights.dtype), free))


def test_weights_by_hand():
    """Ratios 1/2 and 3; 8/5 and something behind the end, which counts for nothing."""
    log_p = np.log(np.float32([[0.25, 0.75], [0.8, 0.5]]))
    log_q = np.log(np.float32([[0.5, 0.25], [0.5, 0.001]]))
    mask = np.array([[True, True], [True, False]])
    for level, expected_weights, truncated in (
        ("token", [[0.5, 2], [1.6, 0]], [[False, True], [False, False]]),
        ("sequence", [[1.5, 1.5], [1.6, 0]], [[False, False], [False, False]]),
    ):
        weights, is_truncated = importance.truncated_importance_weights(log_p, log_q, mask, 2.0, level)
        np.testing.assert_allclose(ops.convert_to_numpy(weights), expected_weights, rtol=1e-6)
        assert ops.convert_to_numpy(is_truncated).tolist() == truncated


def test_a_weighted_loss_keeps_the_values_of_the_clip(gradient):
    """The weights are in the gradient alone, so that what is clipped does not depend on them; and they are constants,
    where they are made of what is learned too."""
    log_probs = ops.convert_to_tensor(np.float32([[-1, -2], [-3, np.inf]]))
    old, mask = np.float32([[-1.5, -2.25], [-2, 0]]), np.array([[True, True], [True, False]])
    arguments = (old, np.float32([2, -1]), mask, 0.5)
    weights = np.float32([[0.5, 1.5], [2, 0]])
    plain, weighted = (
        [ops.convert_to_numpy(x) for x in policy_losses.clipped_sequence_loss(log_probs, *arguments, None, w)]
        for w in (None, weights)
    )
    assert all(map(np.array_equal, plain, weighted))

    def made_of_itself(x):
        return policy_losses.reinforce_loss(x, np.array([2.0]), np.ones((1, 2), bool), None, ops.exp(x))

    assert np.abs(gradient(made_of_itself, np.zeros((1, 2))) + 2).max() < 1e-12


@pytest.mark.parametrize("clip_range", [None, 0.2])
@pytest.mark.parametrize("loss_of", [policy_loss, lambda *settings: TokenLoss(*settings, most_tokens=2)])
def test_the_losses_of_the_stage_weigh_each_token(gradient, clip_range, loss_of):
    """Gradient by hand: minus advantage times weight."""
    start, mask = np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([[True, True], [True, False]])
    batch = {"response_mask": mask, "advantages": np.array([2.0, -0.5]), "old_log_probs": start}
    batch["importance_weights"] = np.array([[0.5, 1.5], [2.0, 7.0]])
    batch = {name: ops.convert_to_tensor(values) for name, values in batch.items()}

    def loss(log_probs):
        class Model:
            def score(self, batch, temperature):
                return log_probs

            def weighted_score(self, batch, weights, temperature):
                return ops.sum(log_probs * weights), log_probs

        return loss_of(1.0, clip_range)(Model(), batch)[0]

    assert np.abs(gradient(loss, start) - [[-1, -3], [1, 0]]).max() < 1e-12
