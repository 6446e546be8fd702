"""Generalized advantages against a sum by brute force, and the clipped value loss by hand."""

import numpy as np
import pytest
from keras import ops

from pipelines.algorithms import value_learning as learning

MASK = np.array([[True, True, True, True], [True, True, False, False], [True, False, False, False]])
EARNED = np.array([[0.1, -0.4, 0.3, 2.0], [-0.2, 1.5, 9.0, 9.0], [0.7, 9.0, 9.0, 9.0]])
VALUES = np.array([[0.5, 0.2, -0.3, 1.1], [0.4, 0.9, 7.0, 7.0], [-0.6, 7.0, 7.0, 7.0]])


def by_brute_force(discount, trace):
    """A_t as the sum over k of (discount * trace) ** k times the k-th difference from t on."""
    found = np.zeros(MASK.shape)
    for row, length in enumerate(MASK.sum(axis=1)):
        value = [*VALUES[row, :length], 0.0]
        differences = [EARNED[row, t] + discount * value[t + 1] - value[t] for t in range(length)]
        for t in range(length):
            found[row, t] = sum((discount * trace) ** (k - t) * differences[k] for k in range(t, length))
    return found


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_the_sum_by_brute_force(discount, trace):
    found = learning.generalized_advantages(EARNED, VALUES, MASK, discount, trace)
    assert np.abs(found - by_brute_force(discount, trace)).max() < 1e-12


def test_both_ends_of_the_trace():
    """Row K: at 1 what is earned from here on minus the value; at 0 one step."""
    full = learning.generalized_advantages(EARNED, VALUES, MASK, 1.0, 1.0)
    assert full[0, 1] == pytest.approx(-0.4 + 0.3 + 2.0 - 0.2) and full[2, 0] == pytest.approx(0.7 + 0.6)
    step = learning.generalized_advantages(EARNED, VALUES, MASK, 0.5, 0.0)
    assert step[0, 1] == pytest.approx(-0.4 + 0.5 * -0.3 - 0.2) and step[1, 1] == pytest.approx(1.5 - 0.9)
    assert not full[~MASK].any()


def test_values_that_are_right_leave_no_advantage():
    """Of a chain that earns for certain: V_t is what is still to come."""
    earned = np.array([[1.0, 2.0, 3.0]])
    values = np.array([[1 + 0.5 * (2 + 0.5 * 3), 2 + 0.5 * 3, 3.0]])
    for trace in (0.0, 0.7, 1.0):
        found = learning.generalized_advantages(earned, values, np.ones((1, 3), bool), 0.5, trace)
        assert np.abs(found).max() < 1e-12


def test_the_last_token_earns_the_reward_and_each_is_charged():
    charges = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, -0.6, 9.0, 9.0], [0.0, 9.0, 9.0, 9.0]])
    found = learning.token_rewards(np.array([1.0, 2.0, 3.0]), charges, MASK)
    expected = [[-0.1, -0.2, -0.3, 0.6], [-0.5, 2.6, 0, 0], [3.0, 0, 0, 0]]
    assert np.abs(found - expected).max() < 1e-12
    assert found.sum(axis=1) == pytest.approx([1 - 1.0, 2 + 0.1, 3.0])


def test_whitened_over_tokens_of_the_rollout():
    found = learning.whitened(EARNED, MASK)
    assert found[MASK].mean() == pytest.approx(0, abs=1e-12) and found[MASK].std() == pytest.approx(1)
    assert not found[~MASK].any()
    order = np.argsort(EARNED[MASK])
    assert (np.argsort(found[MASK]) == order).all()
    assert not learning.whitened(np.full(MASK.shape, 3.0), MASK).any()


def tensors(*arrays):
    return [ops.convert_to_tensor(np.asarray(array)) for array in arrays]


def test_the_value_loss_by_hand(gradient):
    """Old value 0, clip 0.2: (value, return) within the clip, beyond it towards the return and past it, and below."""
    values, returns = np.array([[0.1, 0.5, 0.5, -0.5, -0.5]]), np.array([[1.0, 1.0, 0.3, 1.0, -1.0]])
    mask, old = np.array([[True, True, True, False, True]]), np.zeros((1, 5))
    losses, is_clipped = learning.clipped_value_losses(*tensors(values, old, returns), mask, 0.2)
    # Beyond the clip towards a far return: the held value's error is the larger one and has no gradient.
    expected = [[0.9**2 / 2, 0.8**2 / 2, 0.2**2 / 2, 0, 0.8**2 / 2]]
    assert np.abs(ops.convert_to_numpy(losses) - expected).max() < 1e-6
    assert ops.convert_to_numpy(is_clipped).tolist() == [[False, True, False, False, True]]
    rest = tensors(old, returns)
    slope = gradient(lambda x: ops.sum(learning.clipped_value_losses(x, *rest, mask, 0.2)[0]), values)
    assert np.abs(slope - [[0.1 - 1.0, 0, 0.5 - 0.3, 0, 0]]).max() < 1e-6
    free = gradient(lambda x: ops.sum(learning.clipped_value_losses(x, *rest, mask, None)[0]), values)
    assert np.abs(free - [[0.1 - 1.0, 0.5 - 1.0, 0.5 - 0.3, 0, -0.5 + 1.0]]).max() < 1e-6


def test_old_values_and_returns_have_no_gradient(gradient):
    values, other = tensors(np.array([[0.4]])), np.array([[0.1]])
    mask = np.ones((1, 1), bool)
    for place in (0, 1):

        def loss(x, place=place):
            constants = [x, values[0]] if place == 0 else [values[0], x]
            return ops.sum(learning.clipped_value_losses(values[0], *constants, mask, 0.2)[0])

        assert gradient(loss, other) == 0


def test_explained_variance():
    returns = np.array([[1.0, 2.0, 3.0, 99.0]])
    mask = np.array([[True, True, True, False]])
    assert learning.explained_variance(returns, returns, mask) == 1
    assert learning.explained_variance(np.full((1, 4), 5.0), returns, mask) == pytest.approx(0)
    assert learning.explained_variance(returns + [[0.5, 0, -0.5, 0]], returns, mask) == pytest.approx(0.75)
    assert learning.explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert learning.explained_variance(returns, np.ones((1, 4)), mask) == 0
    # The mean of the returns lies between two float32 numbers.
    close = np.float32([[4096, 4096 + 2**-11]])
    assert learning.explained_variance(np.float32([[4096, 4096]]), close, close > 0) == 0
