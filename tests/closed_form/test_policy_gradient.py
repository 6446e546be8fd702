"""Policy gradients against the true gradient of the KL-regularised objective, by enumeration of every group of
responses.

The problem: one prompt, 4 responses, softmax policy over logits theta, rewards r, J = E[r] - beta KL(pi || ref).
"""

import itertools

import numpy as np
import pytest
from keras import ops
from policy_fixture import rollout_of
from stage_fixture import stage_config

from pipelines.algorithms import advantages, policy_losses
from pipelines.stages.policy_optimization.methods.base import Scored
from pipelines.stages.policy_optimization.methods.registry import method_of

REWARDS = np.array([0.3, -1.2, 2.0, 0.7])
THETA = np.array([0.2, -0.4, 0.1, 0.5])
REFERENCE = np.array([-0.3, 0.6, 0.0, 0.2])
BETA = 0.3


def probabilities(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def objective(logits, rewards=REWARDS, beta=BETA):
    pi, reference = probabilities(logits), probabilities(REFERENCE)
    return pi @ rewards - beta * pi @ np.log(pi / reference)


def objective_gradient(logits, rewards=REWARDS, beta=BETA):
    """By hand: d/d theta_j = pi_j (R_j - E R), where R = r - beta log(pi / ref); the score of the KL itself
    vanishes."""
    pi = probabilities(logits)
    total = rewards - beta * np.log(pi / probabilities(REFERENCE))
    return pi * (total - pi @ total)


def expected_loss_gradient(gradient, advantage_of, k, rewards=REWARDS, beta=BETA):
    """Minus the expected gradient of `reinforce_loss` over all 4 ** k groups of k responses, each a "sequence" of one
    token."""
    pi = probabilities(THETA)
    charged = rewards - beta * np.log(pi / probabilities(REFERENCE))
    groups = np.array(list(itertools.product(range(4), repeat=k)))
    chance = pi[groups].prod(axis=1)
    advantage = np.asarray(ops.convert_to_numpy(advantage_of(ops.convert_to_tensor(charged[groups]))))

    def mean_loss(logits):
        log_pi = ops.log_softmax(logits)
        log_probs = ops.reshape(ops.take(log_pi, groups.reshape(-1)), (-1, 1))
        # The expectation goes through the library's own loss by weighting its advantages with the chance of the group.
        weighted = ops.convert_to_tensor((advantage * chance[:, None]).reshape(-1))
        mask = np.ones((groups.size, 1), bool)
        return policy_losses.reinforce_loss(log_probs, weighted, mask, response_count=k)

    return -gradient(mean_loss, THETA)


def two_token_problem():
    """Responses of up to two of three tokens, the last of which stops; a policy with a distribution before each, and
    its KL-regularised objective with the gradient by hand."""
    random = np.random.default_rng(4)
    responses = [(2,), *itertools.product((0, 1), range(3))]
    rewards, logits, reference = random.normal(0, 1, len(responses)), *random.normal(0, 1, (2, 3, 3))
    pi, ref = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, reference))
    # Which distribution each token is drawn from: the first, or that after the token before.
    places = [(0,) if len(response) == 1 else (0, 1 + response[0]) for response in responses]
    log_probs, reference_log_probs, scores = np.zeros((7, 2)), np.zeros((7, 2)), np.zeros((7, 2, 3, 3))
    for row, (response, place) in enumerate(zip(responses, places, strict=True)):
        for t, (token, at) in enumerate(zip(response, place, strict=True)):
            log_probs[row, t], reference_log_probs[row, t] = np.log(pi[at, token]), np.log(ref[at, token])
            scores[row, t, at] = np.eye(3)[token] - pi[at]
    return responses, rewards, log_probs, reference_log_probs, scores


@pytest.mark.parametrize("has_rewards", [True, False])
def test_crediting_a_token_with_the_kl_to_go_changes_no_gradient_and_takes_noise(has_rewards):
    responses, rewards, log_probs, reference, scores = two_token_problem()
    rewards = rewards * has_rewards
    groups = np.array(list(itertools.product(range(7), repeat=2))).reshape(-1)
    chance = np.exp(log_probs.sum(axis=1))[groups].reshape(-1, 2).prod(axis=1)
    assert chance.sum() == pytest.approx(1)
    answers = [list(responses[i]) for i in groups]
    rollout = rollout_of([[5]] * 98, answers, [answer[-1] == 2 for answer in answers], [""] * 98)
    kl = (log_probs - reference).sum(axis=1)
    scored = Scored(rollout, rewards[groups], log_probs[groups], reference[groups], kl[groups], BETA)
    exact = np.exp(log_probs.sum(axis=1)) * (rewards - BETA * kl)
    expected = np.einsum("n,ntij->ij", exact, scores)  # the score of the KL itself vanishes
    noise = {}
    for credit in ("sequence", "to_go"):
        config = stage_config(
            "policy_optimization", reward="exact_answer", data={"path": "rows.jsonl", "prompt": "p", "answer": "a"},
            algorithm={"name": "rloo", "kl_credit": credit}, samples_per_prompt=2,
        )  # fmt: skip
        advantages = method_of(config.algorithm).batch_arrays(scored, config)["advantages"]
        weights = ops.convert_to_numpy(policy_losses.reinforce_weights(advantages, rollout.response_mask))
        estimates = np.einsum("nt,ntij->nij", weights, scores[groups]).reshape(-1, 2, 3, 3).mean(axis=1)
        mean = np.einsum("g,gij->ij", chance, estimates)
        assert np.abs(mean - expected).max() < 1e-6, credit
        noise[credit] = np.einsum("g,gij->", chance, (estimates - mean) ** 2)
    assert noise["to_go"] != noise["sequence"] and (has_rewards or noise["to_go"] < 0.9 * noise["sequence"])


def test_the_gradient_by_hand_is_the_derivative_of_the_objective():
    step = 1e-6
    for j in range(4):
        up, down = THETA.copy(), THETA.copy()
        up[j] += step
        down[j] -= step
        assert abs((objective(up) - objective(down)) / (2 * step) - objective_gradient(THETA)[j]) < 1e-8


@pytest.mark.parametrize("k", [2, 3, 4])
def test_leave_one_out_is_unbiased(gradient, k):
    found = expected_loss_gradient(gradient, advantages.leave_one_out, k)
    assert np.abs(found - objective_gradient(THETA)).max() < 1e-12


@pytest.mark.parametrize("k", [2, 3, 4])
def test_group_mean_gives_k_minus_one_over_k_of_the_gradient(gradient, k):
    found = expected_loss_gradient(gradient, advantages.group_mean, k)
    assert np.abs(found - (k - 1) / k * objective_gradient(THETA)).max() < 1e-12


def test_moving_average_is_unbiased_whatever_its_value(gradient):
    for baseline in (0.0, 5.0):
        found = expected_loss_gradient(gradient, lambda r, b=baseline: advantages.moving_average(r, b)[0], 2)
        assert np.abs(found - objective_gradient(THETA)).max() < 1e-12


def test_a_constant_added_to_the_rewards_changes_no_gradient(gradient):
    found = expected_loss_gradient(gradient, advantages.leave_one_out, 3, rewards=REWARDS + 17.0)
    assert np.abs(found - objective_gradient(THETA)).max() < 1e-12


def test_variance_of_leave_one_out_falls_with_k(gradient):
    pi = probabilities(THETA)
    charged = REWARDS - BETA * np.log(pi / probabilities(REFERENCE))
    variances = []
    for k in (2, 3, 4):
        groups = np.array(list(itertools.product(range(4), repeat=k)))
        advantage = ops.convert_to_numpy(advantages.leave_one_out(ops.convert_to_tensor(charged[groups])))
        score = np.eye(4)[groups] - pi  # d log pi(response) / d theta
        estimates = (advantage[..., None] * score).mean(axis=1)
        chance = pi[groups].prod(axis=1)
        # k samples each: compared at equal numbers of samples, so per response.
        variances.append(k * (chance @ (estimates**2).sum(axis=1) - (chance @ estimates @ (chance @ estimates))))
    assert variances[0] > variances[1] > variances[2]


def test_equal_rewards_in_a_group_give_advantage_exactly_zero():
    rewards = np.float32([[0.1, 0.1, 0.1], [1e7 / 3, 1e7 / 3, 1e7 / 3]])
    for function in (advantages.leave_one_out, advantages.group_mean):
        assert not ops.convert_to_numpy(function(ops.convert_to_tensor(rewards))).any()


def test_advantages_by_hand():
    rewards = ops.convert_to_tensor(np.float32([[1, 2, 6], [0, 0, 3]]))
    assert ops.convert_to_numpy(advantages.leave_one_out(rewards)).tolist() == [[-3, -1.5, 4.5], [-1.5, -1.5, 3]]
    assert ops.convert_to_numpy(advantages.group_mean(rewards)).tolist() == [[-2, -1, 3], [-1, -1, 2]]
    found, baseline = advantages.moving_average(rewards, 1.0, decay=0.75)
    assert ops.convert_to_numpy(found).tolist() == [[0, 1, 5], [-1, -1, 2]]
    assert float(baseline) == 1.25
    with pytest.raises(ValueError, match="at least 2 samples a prompt.*shape \\(2, 1\\)"):
        advantages.leave_one_out(rewards[:, :1])


def test_clipped_loss_by_hand():
    """Ratios e, 1/e, 1 with clip 0.2: a good response is not pushed beyond 1.2, a bad one not below 0.8."""
    old = np.zeros((4, 2), np.float32)
    new = np.float32([[0.5, 0.5], [-1, np.inf], [1, 0], [0, 0]])
    sampled = np.array([[True, True], [True, False], [True, True], [True, True]])
    advantage = np.float32([2, -3, -1, 4])
    loss, ratio, is_clipped = policy_losses.clipped_sequence_loss(
        ops.convert_to_tensor(new), old, advantage, sampled, 0.2
    )
    e = np.exp(1)
    assert np.allclose(ops.convert_to_numpy(ratio), [e, 1 / e, e, 1], atol=1e-6)
    assert ops.convert_to_numpy(is_clipped).tolist() == [True, True, False, False]
    assert abs(float(loss) - -(2 * 1.2 - 3 * 0.8 - e + 4) / 4) < 1e-6


def test_clipped_loss_starts_with_the_gradient_of_reinforce(gradient):
    sampled = np.array([[True, True, False], [True, True, True]])
    advantage = np.array([1.5, -0.5])
    start = np.array([-0.1, -0.9, -2.0, -0.3, -1.1, -0.7])

    def clipped(x):
        return policy_losses.clipped_sequence_loss(
            ops.reshape(x, (2, 3)), start.reshape(2, 3), advantage, sampled, 0.2
        )[0]

    def plain(x):
        return policy_losses.reinforce_loss(ops.reshape(x, (2, 3)), advantage, sampled)

    expected = -np.where(sampled, advantage[:, None], 0).reshape(-1) / 2
    assert np.abs(gradient(plain, start) - expected).max() < 1e-15
    assert np.abs(gradient(clipped, start) - expected).max() < 1e-15


def test_parts_of_a_batch_add_up_to_the_batch():
    log_probs = np.float32([[-1, -2], [-3, -4], [-5, -6]])
    sampled, advantage = np.ones((3, 2), bool), np.float32([1, -2, 3])
    whole = float(policy_losses.reinforce_loss(log_probs, advantage, sampled))
    parts = [
        float(policy_losses.reinforce_loss(log_probs[s], advantage[s], sampled[s], response_count=3))
        for s in (slice(0, 1), slice(1, 3))
    ]
    assert abs(whole - sum(parts)) < 1e-6
    assert abs(whole - -(1 * -3 + -2 * -7 + 3 * -11) / 3) < 1e-6
