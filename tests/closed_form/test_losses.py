"""The models' losses against values by hand, and their behaviour over parts of a batch."""

import numpy as np
import pytest
from keras import ops

from gemma_keras.losses import bradley_terry_loss, next_token_loss

LOG_PROBS = np.float32([[-1, -2, -np.inf], [-4, -8, -16]])
IS_TARGET = np.array([[True, True, False], [False, True, False]])


def test_next_token_loss_is_the_mean_over_targets_only():
    assert float(next_token_loss(LOG_PROBS, IS_TARGET)) == pytest.approx((1 + 2 + 8) / 3)


def test_parts_add_up_and_nothing_is_a_mean_of_means():
    parts = sum(float(next_token_loss(LOG_PROBS[i : i + 1], IS_TARGET[i : i + 1], target_count=3)) for i in range(2))
    assert parts == pytest.approx((1 + 2 + 8) / 3)


def test_a_batch_without_targets_is_zero_and_has_no_gradient(gradient):
    assert float(next_token_loss(LOG_PROBS, np.zeros((2, 3), bool))) == 0
    found = gradient(
        lambda x: next_token_loss(ops.reshape(x, (1, 2)), np.array([[True, False]])), np.array([-1.0, -2.0])
    )
    assert found.tolist() == [-1, 0]


def test_bradley_terry_by_hand(gradient):
    chosen, rejected = np.float32([2, 0]), np.float32([1, 3])
    expected = (np.log1p(np.exp(-1)) + np.log1p(np.exp(3))) / 2
    assert float(bradley_terry_loss(chosen, rejected)) == pytest.approx(expected, rel=1e-6)
    with_margin = (np.log1p(np.exp(-0.5)) + np.log1p(np.exp(4))) / 2
    assert float(bradley_terry_loss(chosen, rejected, margin=np.float32([0.5, 1]))) == pytest.approx(
        with_margin, rel=1e-6
    )
    centred = expected + 0.1 * (9 + 9) / 2
    assert float(bradley_terry_loss(chosen, rejected, center_coefficient=0.1)) == pytest.approx(centred, rel=1e-6)
    halves = [float(bradley_terry_loss(chosen[i : i + 1], rejected[i : i + 1], pair_count=2)) for i in range(2)]
    assert sum(halves) == pytest.approx(expected, rel=1e-6)
    slope = gradient(lambda x: bradley_terry_loss(x, ops.convert_to_tensor(np.zeros(1))), np.array([0.7]))
    assert slope[0] == pytest.approx(-1 / (1 + np.exp(0.7)), abs=1e-12)


def test_label_smoothing_by_hand_and_by_gradient(gradient):
    chosen, rejected, margin = np.float32([2, 0]), np.float32([1, 3]), np.float32([0.5, 1])
    # m is 0.5 and -4: the preference as it stands with weight 0.8, the wrong way round with 0.2.
    of_each = [0.8 * np.log1p(np.exp(-0.5)) + 0.2 * np.log1p(np.exp(0.5))]
    of_each.append(0.8 * np.log1p(np.exp(4)) + 0.2 * np.log1p(np.exp(-4)))
    options = {"margin": margin, "label_smoothing": 0.2}
    assert float(bradley_terry_loss(chosen, rejected, **options)) == pytest.approx(np.mean(of_each), rel=1e-6)
    one = {"is_pair": np.array([True, False]), "pair_count": 1}
    assert float(bradley_terry_loss(chosen, rejected, **options, **one)) == pytest.approx(of_each[0], rel=1e-6)
    centred = np.mean(of_each) + 0.1 * (9 + 9) / 2
    assert float(bradley_terry_loss(chosen, rejected, center_coefficient=0.1, **options)) == pytest.approx(
        centred, rel=1e-6
    )

    def slope(score):
        zero = ops.convert_to_tensor(np.zeros(1))
        return gradient(lambda x: bradley_terry_loss(x, zero, label_smoothing=0.2), np.array([score]))[0]

    # sigmoid(m) - (1 - e), which is 0 where the model says just what the labels are worth.
    assert slope(0.7) == pytest.approx(1 / (1 + np.exp(-0.7)) - 0.8, abs=1e-12)
    assert slope(np.log(0.8 / 0.2)) == pytest.approx(0, abs=1e-12)


def test_bradley_terry_stays_finite_at_large_differences():
    assert float(bradley_terry_loss(np.float32([-500]), np.float32([500]))) == 1000
    assert float(bradley_terry_loss(np.float32([500]), np.float32([-500]))) == 0
    assert float(bradley_terry_loss(np.float32([500]), np.float32([-500]), label_smoothing=0.25)) == 250
