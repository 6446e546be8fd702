"""Losses of single tokens and what they add up to: by hand, in plain Python loops, and by enumeration of every group of
responses to one prompt."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from pipelines.algorithms import advantages, length_penalties, token_losses

LENGTHS = [3, 1, 4, 2, 0]  # the last row only fills a shape up
MASK = np.arange(4) < np.array(LENGTHS)[:, None]
ADVANTAGES = np.array([0.75, -2.0, -0.5, 1.5, 9.0])
OLD = np.array([[-1.0, -0.5, -2.0, 0], [-3.0, 0, 0, 0], [-1.0, -1.5, -0.2, -0.7], [-2.0, -0.9, 0, 0], [0, 0, 0, 0]])
# Ratios below, within and above [0.75, 1.375], for good responses and bad ones; what was not sampled may be anything.
RATIOS = np.array([[1.4, 0.7, 1.1, 7], [0.6, 7, 7, 7], [1.5, 0.9, 0.8, 0.7], [1.35, 1.45, 7, 7], [7, 7, 7, 7]])
NEW = np.where(MASK, OLD + np.log(RATIOS), np.inf)
LOW, HIGH, MOST = 0.25, 0.375, 5  # numbers that float32 has
CHOICES = list(itertools.product(("token", "sequence"), ("tokens", "responses", "constant")))


def f64(values):
    """A constant in double precision; on PyTorch Keras makes a float32 of NumPy's, whatever is asked for."""
    if keras.backend.backend() == "torch" and isinstance(values, np.ndarray):
        import torch

        return torch.from_numpy(values)
    return ops.convert_to_tensor(values, "float64")


def in_loops(ratio_of, aggregation):
    """The loss and its gradient, response by response and token by token, differentiated by hand."""
    tokens, responses = sum(LENGTHS), sum(length > 0 for length in LENGTHS)
    weight_of = {
        "tokens": lambda length: 1 / tokens,
        "responses": lambda length: 1 / (length * responses),
        "constant": lambda length: 1 / (MOST * responses),
    }[aggregation]
    loss, gradient, clipped = 0.0, np.zeros(MASK.shape), np.zeros((2, *MASK.shape), bool)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            ratio = RATIOS[row, t] if ratio_of == "token" else np.prod(RATIOS[row, :length]) ** (1 / length)
            advantage, weight = ADVANTAGES[row], weight_of(length)
            clipped[0, row, t] = advantage < 0 and ratio < 1 - LOW
            clipped[1, row, t] = advantage > 0 and ratio > 1 + HIGH
            if clipped[:, row, t].any():
                loss -= weight * advantage * (1 - LOW if clipped[0, row, t] else 1 + HIGH)
                continue
            loss -= weight * advantage * ratio
            slope = -weight * advantage * ratio
            if ratio_of == "token":
                gradient[row, t] += slope
            else:
                gradient[row, :length] += slope / length
    return loss, gradient, clipped


def loss_of(log_probs, ratio_of, aggregation, rows=slice(None), count=None):
    losses, *_ = token_losses.clipped_token_losses(
        log_probs, f64(OLD[rows]), f64(ADVANTAGES[rows, None]), MASK[rows], LOW, HIGH, ratio_of
    )
    return token_losses.aggregated_loss(losses, MASK[rows], aggregation, MOST, count)


@pytest.mark.parametrize(("ratio_of", "aggregation"), CHOICES)
def test_loss_and_gradient_on_both_sides_of_the_clip(gradient, ratio_of, aggregation):
    loss, expected, clipped = in_loops(ratio_of, aggregation)
    assert clipped[0].any() and clipped[1].any() and expected.any()
    assert float(loss_of(f64(NEW), ratio_of, aggregation)) == pytest.approx(loss, abs=1e-12)
    found = gradient(lambda x: loss_of(x, ratio_of, aggregation), NEW)
    assert np.abs(found - expected).max() < 1e-12
    _, is_low, is_high = token_losses.clipped_token_losses(
        f64(NEW), f64(OLD), f64(ADVANTAGES[:, None]), MASK, LOW, HIGH, ratio_of
    )
    assert np.array_equal(np.stack([ops.convert_to_numpy(is_low), ops.convert_to_numpy(is_high)]), clipped)


def test_losses_by_hand():
    """A good response with ratios 2 and 1, a bad one with ratio 1/2; at most three tokens."""
    mask = np.array([[True, True], [True, False]])
    new = ops.convert_to_tensor(np.float32([[np.log(2), 0], [np.log(0.5), 7]]))
    good_and_bad = np.float32([[3], [-4]])
    losses, is_low, is_high = token_losses.clipped_token_losses(
        new, np.zeros((2, 2), np.float32), good_and_bad, mask, 0.25, 0.5
    )
    assert np.allclose(ops.convert_to_numpy(losses), [[-4.5, -3], [3, 0]], atol=1e-6)
    assert ops.convert_to_numpy(is_low).tolist() == [[False, False], [True, False]]
    assert ops.convert_to_numpy(is_high).tolist() == [[True, False], [False, False]]
    found = [float(token_losses.aggregated_loss(losses, mask, how, 3)) for how in ("tokens", "responses", "constant")]
    assert found == pytest.approx([-4.5 / 3, (-7.5 / 2 + 3) / 2, -4.5 / 6], abs=1e-6)
    # Without an upper end of its own the ratio is trusted as far up as down.
    losses, *_ = token_losses.clipped_token_losses(new, np.zeros((2, 2), np.float32), good_and_bad, mask, 0.25)
    assert np.allclose(ops.convert_to_numpy(losses), [[-3.75, -3], [3, 0]], atol=1e-6)
    # The ratio of the first response is the square root of 2 * 1.
    losses, *_ = token_losses.clipped_token_losses(
        new, np.zeros((2, 2), np.float32), good_and_bad, mask, 0.5, None, "sequence"
    )
    assert np.allclose(ops.convert_to_numpy(losses), [[-3 * 2**0.5] * 2, [2, 0]], atol=1e-6)


def test_a_ratio_on_the_bound_itself_is_trusted():
    """At both ends, with bounds made of the ratios that the backend finds."""
    new = ops.convert_to_tensor(np.float32([[0.25], [-0.25]]))
    up, down = ops.convert_to_numpy(ops.exp(new)).reshape(-1).tolist()
    arguments = new, np.zeros((2, 1), np.float32), np.float32([[1], [-1]]), np.ones((2, 1), bool)
    _, is_low, is_high = token_losses.clipped_token_losses(*arguments, 1 - down, up - 1)
    assert not ops.convert_to_numpy(is_low).any() and not ops.convert_to_numpy(is_high).any()
    _, is_low, is_high = token_losses.clipped_token_losses(*arguments, 1 - down - 1e-6, up - 1 - 1e-6)
    assert ops.convert_to_numpy(is_low).tolist() == [[False], [True]]
    assert ops.convert_to_numpy(is_high).tolist() == [[True], [False]]


def test_the_estimator_in_the_loss_by_hand():
    """exp(-l) - 1 + l of l = log 2 and -log 2; 0 where nothing was sampled, whatever stands there."""
    new = ops.convert_to_tensor(np.float32([[-1, -2, np.inf]]))
    reference = np.float32([[-1 - np.log(2), -2 + np.log(2), 5]])
    found = token_losses.kl_token_losses(new, reference, np.array([[True, True, False]]))
    assert np.allclose(ops.convert_to_numpy(found), [[np.log(2) - 0.5, 1 - np.log(2), 0]], atol=1e-6)


def test_what_a_token_counts_for_by_hand():
    mask = np.array([[True] * 4, [True, False, False, False], [False] * 4])
    found = {
        how: ops.convert_to_numpy(token_losses.aggregation_weights(mask, how, 8)).tolist()
        for how in ("tokens", "responses", "constant")
    }
    assert found["tokens"] == [[1] * 4, [1, 0, 0, 0], [0] * 4]
    assert found["responses"] == [[0.25] * 4, [1, 0, 0, 0], [0] * 4]
    assert found["constant"] == [[0.125] * 4, [0.125, 0, 0, 0], [0] * 4]
    assert [float(token_losses.units(mask, how)) for how in found] == [5, 2, 2]


@pytest.mark.parametrize(("ratio_of", "aggregation"), CHOICES)
def test_parts_of_a_batch_add_up_to_the_batch(gradient, ratio_of, aggregation):
    """Loss and gradient, in parts of unequal lengths."""
    count = float(token_losses.units(MASK, aggregation))
    assert count == (10 if aggregation == "tokens" else 4)
    found, slopes = [], []
    for rows in (slice(0, 2), slice(2, 3), slice(3, 5)):
        found.append(float(loss_of(f64(NEW[rows]), ratio_of, aggregation, rows, count)))
        slopes.append(gradient(lambda x, rows=rows: loss_of(x, ratio_of, aggregation, rows, count), NEW[rows]))
    whole, slope, _ = in_loops(ratio_of, aggregation)
    assert sum(found) == pytest.approx(whole, abs=1e-12)
    assert np.abs(np.concatenate(slopes) - slope).max() < 1e-12


@pytest.mark.parametrize(("ratio_of", "aggregation"), CHOICES)
@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_what_is_known_before_a_first_update_is_its_gradient(gradient, ratio_of, aggregation, kl_weight):
    reference = np.where(MASK, OLD + np.cos(np.arange(20.0).reshape(5, 4)), np.inf)
    start = np.where(MASK, OLD, -9.0)

    def loss(log_probs):
        losses, *_ = token_losses.clipped_token_losses(
            log_probs, f64(OLD), f64(ADVANTAGES[:, None]), MASK, LOW, HIGH, ratio_of
        )
        losses = losses + kl_weight * token_losses.kl_token_losses(log_probs, f64(reference), MASK)
        return token_losses.aggregated_loss(losses, MASK, aggregation, MOST, count=1)

    expected = -gradient(loss, start)
    gains = token_losses.first_update_weights(
        f64(ADVANTAGES[:, None]), MASK, kl_weight, f64(OLD - reference) if kl_weight else None
    )
    weights = token_losses.aggregation_weights(MASK, aggregation, MOST, "float64")
    found = ops.convert_to_numpy(gains) * ops.convert_to_numpy(weights)
    assert np.abs(expected).max() > 0.1 and np.abs(found - expected).max() < 1e-12


def test_group_normalized_advantages_by_hand():
    """Sums of squares 14 and 6, over k - 1 = 2; equal rewards give exactly 0, whatever float they are."""
    rewards = np.float32([[1, 2, 6], [0, 0, 3], [0.1, 0.1, 0.1], [1e7 / 3] * 3])
    found = ops.convert_to_numpy(advantages.group_normalized(ops.convert_to_tensor(rewards)))
    expected = [np.array([-2, -1, 3]) / (7**0.5 + 1e-4), np.array([-1, -1, 2]) / (3**0.5 + 1e-4)]
    assert np.allclose(found[:2], expected, atol=1e-6) and not found[2:].any()
    with pytest.raises(ValueError, match="at least 2 samples a prompt.*shape \\(4, 1\\)"):
        advantages.group_normalized(rewards[:, :1])


def test_the_soft_penalty_for_length_by_hand():
    """arXiv:2503.14476, equation 13, with L_max 20 and L_cache 5."""
    found = length_penalties.soft_overlong_penalty([1, 15, 16, 19, 20], 20, 5)
    assert np.allclose(found, [0, 0, 0.2, 0.8, 1], atol=1e-12)
    assert length_penalties.soft_overlong_penalty([3], 4, 4).tolist() == [0.75]


# One prompt; a response is up to two tokens of {0, 1, stop}: seven of them, of one or two tokens.
STOP = 2
RESPONSES = [(STOP,), *((first, second) for first in (0, 1) for second in (0, 1, STOP))]
REWARDS = np.array([-1.3, -1.2, 2.0, 0.7, 1.1, -0.4, 0.9])
THETA = np.array([[0.2, -0.4, 0.1], [0.5, 0.0, -0.3], [-0.6, 0.3, 0.4]])  # at the start, behind 0, behind 1
REFERENCE = np.array([[-0.3, 0.6, 0.0], [0.1, 0.4, -0.2], [0.2, -0.5, 0.3]])
SAMPLED = np.array([[True, len(response) == 2] for response in RESPONSES])
CONTEXTS = np.array([[0, 0 if len(response) == 1 else 1 + response[0]] for response in RESPONSES])
TOKENS = np.array([[response[0], response[-1]] for response in RESPONSES])


def log_probs_of_responses(theta):
    """(7, 2), any backend's array or NumPy's."""
    table = ops.reshape(ops.log_softmax(f64(theta), axis=-1), (-1,))
    return ops.reshape(ops.take(table, (CONTEXTS * 3 + TOKENS).reshape(-1)), (7, 2))


def chances():
    log_pi = np.where(SAMPLED, ops.convert_to_numpy(log_probs_of_responses(THETA)), 0)
    return np.exp(log_pi.sum(axis=1))


def expected_gradient(gradient, aggregation, k):
    """Minus the expected gradient of the loss over all groups of k responses, weighted with their chances."""
    groups = np.array(list(itertools.product(range(7), repeat=k)))
    chance = chances()[groups].prod(axis=1)
    found = ops.convert_to_numpy(advantages.group_mean(f64(REWARDS[groups])))
    rows, mask = groups.reshape(-1), SAMPLED[groups.reshape(-1)]
    old = ops.convert_to_numpy(log_probs_of_responses(THETA))[rows]

    def loss(theta):
        log_probs = ops.take(log_probs_of_responses(theta), rows, axis=0)
        losses, *_ = token_losses.clipped_token_losses(log_probs, f64(old), f64(found.reshape(-1, 1)), mask, 0.2)
        if aggregation == "tokens":  # whose number differs from group to group
            chance_of_row = np.repeat(chance / mask.reshape(len(groups), -1).sum(axis=1), k)
            return ops.sum(losses * f64(chance_of_row[:, None]))
        losses = losses * f64(np.repeat(chance, k)[:, None])
        return token_losses.aggregated_loss(losses, mask, aggregation, 2, count=k)

    return -gradient(loss, THETA)


@pytest.mark.parametrize("k", [2, 3])
def test_dr_grpo_gives_k_minus_one_over_k_of_the_gradient(gradient, k):
    """Of the expected reward, over the constant; the other two aggregations give another direction, as they weigh a
    response by its length."""
    true = gradient(lambda x: ops.sum(response_chances(x) * f64(REWARDS)), THETA)
    assert np.abs(true).max() > 0.1
    assert np.abs(expected_gradient(gradient, "constant", k) - (k - 1) / k * true / 2).max() < 1e-12
    for aggregation in ("responses", "tokens"):
        other = expected_gradient(gradient, aggregation, k)
        cosine = (other * true).sum() / np.linalg.norm(other) / np.linalg.norm(true)
        assert 0 < cosine < 0.999


def response_chances(theta):
    return ops.exp(ops.sum(ops.where(SAMPLED, log_probs_of_responses(theta), 0), axis=-1))


def test_k3_in_the_loss_has_the_gradient_of_the_forward_kl_at_the_sampled_prefixes(gradient):
    reference = ops.convert_to_numpy(log_probs_of_responses(REFERENCE))
    chance = chances()

    def loss(theta):
        kl = token_losses.kl_token_losses(log_probs_of_responses(theta), f64(reference), SAMPLED)
        return ops.sum(kl * f64(chance[:, None]))

    def forward_kl(theta):
        """KL(reference || policy) of the next token, at each prefix as often as it is met."""
        log_pi, log_reference = (ops.log_softmax(f64(x), axis=-1) for x in (theta, REFERENCE))
        start = np.exp(THETA[0]) / np.exp(THETA[0]).sum()
        met = np.array([1, start[0], start[1]])
        return ops.sum(ops.sum(ops.exp(log_reference) * (log_reference - log_pi), axis=-1) * f64(met))

    found, expected = gradient(loss, THETA), gradient(forward_kl, THETA)
    assert np.abs(expected).max() > 0.01 and np.abs(found - expected).max() < 1e-12
