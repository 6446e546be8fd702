"""The table of KL estimators by enumeration, and the optimum of the KL-regularised objective.

The policy: 3 tokens, sequences of length 1 or 2, softmax logits for the first token and one row for the second after
each.
"""

import itertools

import numpy as np
import pytest
from keras import ops

from pipelines.algorithms import advantages, kl, policy_losses

V = 3
RNG = np.random.default_rng(0)
THETA, REFERENCE = RNG.normal(size=(V + 1) * V), RNG.normal(size=(V + 1) * V)


def sequences(length):
    return np.array(list(itertools.product(range(V), repeat=length)))


def token_log_probs(flat, tokens):
    """Log-probability of each token of each sequence, (n, length); row 0 of the table is the first token's
    distribution."""
    log_pi = ops.log_softmax(ops.reshape(flat, (V + 1, V)), axis=-1)
    rows = np.concatenate([np.zeros((len(tokens), 1), int), tokens[:, :-1] + 1], axis=1)
    return ops.reshape(ops.take(ops.reshape(log_pi, (-1,)), (rows * V + tokens).reshape(-1)), tokens.shape)


def numpy_log_probs(flat, tokens):
    table = flat.reshape(V + 1, V)
    table = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    rows = np.concatenate([np.zeros((len(tokens), 1), int), tokens[:, :-1] + 1], axis=1)
    return table[rows, tokens]


def numeric_gradient(function, x, step=1e-5):
    return np.array([(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(x.size)])


def reverse_kl(flat, tokens):
    log_pi, log_ref = numpy_log_probs(flat, tokens).sum(1), numpy_log_probs(REFERENCE, tokens).sum(1)
    return np.exp(log_pi) @ (log_pi - log_ref)


def forward_kl_on_policy(flat, tokens):
    """What k3 in the loss descends: the forward KL of each next token at prefixes of the policy, the prefixes held
    still."""
    log_pi, log_ref = numpy_log_probs(flat, tokens), numpy_log_probs(REFERENCE, tokens)
    prefix = np.exp(
        np.concatenate([np.zeros((len(tokens), 1)), numpy_log_probs(THETA, tokens).cumsum(1)[:, :-1]], axis=1)
    )
    # A prefix of length j is met V ** (length - 1 - j) times among the sequences.
    repeats = V ** np.arange(tokens.shape[1])[::-1]
    return (prefix * np.exp(log_ref) * (log_ref - log_pi) / repeats).sum()


def in_the_loss(gradient, tokens, estimator, with_ratio=False):
    """Expected gradient of the sum over tokens of an estimator in the loss, samples and their weights held fixed."""
    chance = ops.convert_to_tensor(np.exp(numpy_log_probs(THETA, tokens).sum(1, keepdims=True)))
    old, reference = (ops.convert_to_tensor(numpy_log_probs(flat, tokens)) for flat in (THETA, REFERENCE))

    def loss(flat):
        log_pi = token_log_probs(flat, tokens)
        value = estimator(log_pi - reference)
        return ops.sum(chance * (ops.exp(log_pi - old) * value if with_ratio else value))

    return gradient(loss, THETA)


def in_the_reward(gradient, tokens):
    """Expected gradient of the library's loss where the only reward is minus the sequence KL."""
    chance = np.exp(numpy_log_probs(THETA, tokens).sum(1))
    mask = np.ones(tokens.shape, bool)
    charge = ops.convert_to_numpy(
        kl.sequence_kl(
            ops.convert_to_tensor(numpy_log_probs(THETA, tokens)),
            ops.convert_to_tensor(numpy_log_probs(REFERENCE, tokens)),
            mask,
        )
    )

    def loss(flat):
        return policy_losses.reinforce_loss(token_log_probs(flat, tokens), -charge * chance, mask, response_count=1)

    return gradient(loss, THETA)


@pytest.mark.parametrize("length", [1, 2])
def test_k1_in_the_reward_is_the_gradient_of_the_kl(gradient, length):
    tokens = sequences(length)
    expected = numeric_gradient(lambda x: reverse_kl(x, tokens), THETA)
    assert np.abs(expected).max() > 0.1
    assert np.abs(in_the_reward(gradient, tokens) - expected).max() < 1e-9


@pytest.mark.parametrize("length", [1, 2])
def test_k1_in_the_loss_does_nothing(gradient, length):
    assert np.abs(in_the_loss(gradient, sequences(length), kl.k1)).max() < 1e-9


def test_k2_in_the_loss_is_right_for_one_token_and_biased_for_two(gradient):
    for length, is_right in ((1, True), (2, False)):
        tokens = sequences(length)
        error = np.abs(
            in_the_loss(gradient, tokens, kl.k2) - numeric_gradient(lambda x, t=tokens: reverse_kl(x, t), THETA)
        ).max()
        assert (error < 1e-9) if is_right else (error > 1e-2)


@pytest.mark.parametrize("length", [1, 2])
def test_k3_in_the_loss_descends_the_forward_kl(gradient, length):
    tokens = sequences(length)
    expected = numeric_gradient(lambda x: forward_kl_on_policy(x, tokens), THETA)
    assert np.abs(in_the_loss(gradient, tokens, kl.k3) - expected).max() < 1e-9
    assert np.abs(expected - numeric_gradient(lambda x: reverse_kl(x, tokens), THETA)).max() > 1e-2


def test_ratio_times_k3_is_right_for_one_token_and_biased_for_two(gradient):
    for length, is_right in ((1, True), (2, False)):
        tokens = sequences(length)
        found = in_the_loss(gradient, tokens, kl.k3, with_ratio=True)
        error = np.abs(found - numeric_gradient(lambda x, t=tokens: reverse_kl(x, t), THETA)).max()
        assert (error < 1e-9) if is_right else (error > 1e-2)


def test_k1_and_k3_are_unbiased_values_and_k3_is_never_negative(gradient):
    tokens = sequences(1)
    chance = np.exp(numpy_log_probs(THETA, tokens)[:, 0])
    log_ratio = ops.convert_to_tensor((numpy_log_probs(THETA, tokens) - numpy_log_probs(REFERENCE, tokens))[:, 0])
    exact = reverse_kl(THETA, tokens)
    for estimator in (kl.k1, kl.k3):
        assert abs(chance @ ops.convert_to_numpy(estimator(log_ratio)) - exact) < 1e-12
    assert ops.convert_to_numpy(kl.k3(log_ratio)).min() >= 0
    assert ops.convert_to_numpy(kl.k1(log_ratio)).min() < 0


def test_the_exact_token_kl_summed_over_prefixes_is_the_sequence_kl(gradient):
    tokens = sequences(2)
    tables = [ops.log_softmax(ops.convert_to_tensor(flat.reshape(V + 1, V)), axis=-1) for flat in (THETA, REFERENCE)]
    token_kl = ops.convert_to_numpy(kl.exact_token_kl(*tables))
    first = np.exp(numpy_log_probs(THETA, sequences(1))[:, 0])
    assert abs(token_kl[0] + first @ token_kl[1:] - reverse_kl(THETA, tokens)) < 1e-12


def numpy_log_softmax(logits):
    logits = np.float64(logits)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_a_token_the_policy_cannot_produce_adds_nothing():
    log_probs, reference = np.float32([0.0, -np.inf, -np.inf]), np.float32([np.log(0.5), np.log(0.5), -np.inf])
    found = kl.exact_token_kl(ops.convert_to_tensor(log_probs), ops.convert_to_tensor(reference))
    assert float(found) == pytest.approx(np.log(2))


@pytest.mark.parametrize("size", [1e-3, 1e-2, 1.0])
def test_the_exact_token_kl_of_near_policies_from_float32_logits(size):
    """Over 262,144 tokens, down to 4e-7 nats; the plain sum is off by as much, from rounding in the normalisers."""
    rng = np.random.default_rng(0)
    first = np.float32(4 * rng.normal(size=(3, 262_144)))
    logits = first, np.float32(first + size * rng.normal(size=first.shape))
    policy, reference = (numpy_log_softmax(one) for one in logits)
    expected = (np.exp(policy) * (policy - reference)).sum(-1)
    tables = [ops.log_softmax(ops.convert_to_tensor(one), axis=-1) for one in logits]
    np.testing.assert_allclose(ops.convert_to_numpy(kl.exact_token_kl(*tables)), expected, rtol=1e-3)
    assert not ops.convert_to_numpy(kl.exact_token_kl(tables[0], tables[0])).any()


def test_masked_positions_do_not_count():
    found = kl.sequence_kl(
        np.float32([[-1, np.inf], [-2, -1]]), np.float32([[-3, 0], [-1, -4]]), np.array([[True, False], [True, True]])
    )
    assert ops.convert_to_numpy(found).tolist() == [2.0, 2.0]


def optimum(reference, rewards, beta):
    weights = reference * np.exp(rewards / beta)
    return weights / weights.sum()


def test_distance_from_the_optimum_is_beta_kl():
    """J* - J(pi) = beta KL(pi || pi*), with J computed through `exact_token_kl`, for many policies."""
    rng, beta = np.random.default_rng(1), 0.37
    reference, rewards = rng.dirichlet(np.ones(9)), rng.normal(size=9)
    best = optimum(reference, rewards, beta)
    j_best = beta * np.log((reference * np.exp(rewards / beta)).sum())
    for pi in rng.dirichlet(np.ones(9), size=20):
        j = pi @ rewards - beta * (pi @ np.log(pi / reference))
        assert abs(j_best - j - beta * (pi @ np.log(pi / best))) < 1e-12


def test_the_identity_through_the_library(gradient):
    rng, beta = np.random.default_rng(2), 0.37
    reference, rewards, pi = rng.dirichlet(np.ones(5)), rng.normal(size=5), rng.dirichlet(np.ones(5))
    best = optimum(reference, rewards, beta)

    def divergence(p, q):
        return float(kl.exact_token_kl(ops.convert_to_tensor(np.log(p)), ops.convert_to_tensor(np.log(q))))

    j_best = best @ rewards - beta * divergence(best, reference)
    j = pi @ rewards - beta * divergence(pi, reference)
    assert abs(j_best - j - beta * divergence(pi, best)) < 1e-12


def test_gradient_ascent_on_the_library_gradient_reaches_the_optimum(gradient):
    """Row A, after training: leave-one-out with the KL in the reward, exact expectation, total variation < 0.02."""
    beta, rewards = 0.5, np.array([1.0, 0.0, -0.5])
    reference = np.array([0.2, 0.5, 0.3])
    logits = np.log(reference)
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    for _ in range(150):
        pi = np.exp(logits) / np.exp(logits).sum()
        charged = rewards - beta * np.log(pi / reference)
        advantage = ops.convert_to_numpy(advantages.leave_one_out(ops.convert_to_tensor(charged[pairs])))
        weighted = (advantage * pi[pairs].prod(1, keepdims=True)).reshape(-1)

        def loss(x, weighted=weighted):
            log_probs = ops.reshape(ops.take(ops.log_softmax(x), pairs.reshape(-1)), (-1, 1))
            return policy_losses.reinforce_loss(log_probs, weighted, np.ones((pairs.size, 1), bool), response_count=2)

        logits = logits - 2.0 * gradient(loss, logits)
    best = optimum(reference, rewards, beta)
    assert np.abs(np.exp(logits) / np.exp(logits).sum() - best).sum() / 2 < 0.02
    assert np.abs(optimum(reference, 3 * rewards, 3 * beta) - best).max() < 1e-15


def test_best_of_n_bounds():
    """Row F: KL <= log n - (n - 1) / n and win rate against a fresh sample <= n / (n + 1); equality only as atoms
    vanish."""
    for atoms, n in ((4, 2), (4, 8), (50, 4), (4000, 4)):
        reference = np.full(atoms, 1 / atoms)
        below = np.arange(1, atoms + 1) / atoms
        best = below**n - (below - 1 / atoms) ** n
        divergence = float(
            kl.exact_token_kl(
                ops.convert_to_tensor(np.float32(np.log(best))), ops.convert_to_tensor(np.float32(np.log(reference)))
            )
        )
        bound = np.log(n) - (n - 1) / n
        win_rate = best @ (below - 1 / atoms)
        assert win_rate < n / (n + 1)
        assert divergence < bound + 1e-6
        if atoms == 4000:
            assert bound - divergence < 1e-3 and n / (n + 1) - win_rate < 1e-3
        if atoms == 4:
            assert bound - divergence > 1e-2
