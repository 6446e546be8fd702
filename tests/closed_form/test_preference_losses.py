"""Losses of preference optimization: values by hand, and where they are least, by enumeration of every pair.

The problem: one prompt, 4 answers, a softmax policy over logits, a rater that prefers answer i to j with the
probability of a Bradley-Terry model. Pairs are drawn evenly.
"""

import itertools

import numpy as np
import pytest
from keras import ops

from pipelines.algorithms import preference_losses as losses
from pipelines.stages.preference_optimization.losses.base import Answers
from pipelines.stages.preference_optimization.losses.registry import LOSSES

REWARDS = np.array([0.3, -1.2, 2.0, 0.7])
REFERENCE = np.array([-0.3, 0.6, 0.0, 0.2])
START = np.array([0.2, -0.4, 0.1, 0.5])
LENGTHS = np.array([1.0, 3.0, 2.0, 5.0])
PAIRS = np.array(list(itertools.permutations(range(4), 2)))
BETA = 0.3


def on_host(formula, *arrays, **options):
    """A formula of float32 arrays, computed by the backend."""
    return ops.convert_to_numpy(formula(*(ops.convert_to_tensor(np.float32(x)) for x in arrays), **options))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


def preferred(pairs=PAIRS, rewards=REWARDS):
    """How often the first answer of each pair is preferred."""
    return 1 / (1 + np.exp(rewards[pairs[:, 1]] - rewards[pairs[:, 0]]))


def expected_loss(loss, logits, shares=None, kl=0.0):
    """Mean over all ordered pairs, each as often as a rater prefers its first answer; by the stage's own classes."""
    log_pi, reference = ops.log_softmax(logits), ops.convert_to_tensor(log_softmax(REFERENCE))

    def side(column):
        answers = PAIRS[:, column]
        return Answers(ops.take(log_pi, answers), ops.take(reference, answers), ops.convert_to_tensor(LENGTHS[answers]))

    found = loss.of_pairs(side(0), side(1), kl)
    return ops.mean(found * ops.convert_to_tensor(preferred() if shares is None else shares))


def regularised_optimum(beta):
    """pi* of E[r] - beta KL(pi || ref): pi* ~ ref exp(r / beta)."""
    return log_softmax(REFERENCE + REWARDS / beta)


def test_values_by_hand():
    x = np.array([1.5, -0.5])
    nll = np.log1p(np.exp(-x))
    assert np.allclose(on_host(losses.logistic_loss, x), nll, rtol=1e-6)
    assert np.allclose(
        on_host(losses.logistic_loss, x, label_smoothing=0.2), 0.8 * nll + 0.2 * np.log1p(np.exp(x)), rtol=1e-6
    )
    robust = (0.8 * nll - 0.2 * np.log1p(np.exp(x))) / 0.6
    assert np.allclose(on_host(losses.robust_loss, x, label_noise=0.2), robust, rtol=1e-6)
    assert np.allclose(on_host(losses.squared_loss, x, beta=0.25), [(1.5 - 2) ** 2, (-0.5 - 2) ** 2], rtol=1e-6)


def test_odds_by_hand_and_at_both_ends(gradient):
    p, q = np.array([0.9, 0.2]), np.array([0.3, 0.6])
    odds = (p / (1 - p)) / (q / (1 - q))
    assert np.allclose(on_host(losses.odds_ratio_loss, np.log(p), np.log(q)), np.log1p(1 / odds), rtol=1e-6)
    for log_prob in (-1e-9, 0.0, -80.0):
        slope = gradient(
            lambda x: ops.sum(losses.odds_ratio_loss(x, ops.convert_to_tensor(np.array([-1.0])))), np.array([log_prob])
        )
        assert np.isfinite(slope).all()
    slope = gradient(lambda x: ops.sum(losses.odds_ratio_loss(x, ops.convert_to_tensor(np.log(q[:1])))), np.log(p[:1]))
    # d/d log p of log(1 + 1 / odds) = -1 / (1 + odds) / (1 - p)
    assert slope[0] == pytest.approx(-1 / (1 + odds[0]) / (1 - p[0]), rel=1e-6)


def test_prospects_by_hand(gradient):
    chosen, rejected, kl, beta = np.array([0.7, -1.0]), np.array([0.2, 0.4]), 0.3, 0.5
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = (1.5 * (1 - sigmoid(beta * (chosen - kl))) + 0.8 * (1 - sigmoid(beta * (kl - rejected)))) / 2
    assert np.allclose(
        on_host(losses.prospect_loss, chosen, rejected, kl, beta=beta, desirable_weight=1.5, undesirable_weight=0.8),
        expected,
        rtol=1e-6,
    )
    # What the policy is measured from gets no gradient.
    sides = ops.convert_to_tensor(chosen), ops.convert_to_tensor(rejected)
    assert gradient(lambda z: ops.sum(losses.prospect_loss(*sides, z[0], beta)), np.array([0.3])) == 0
    assert on_host(losses.prospect_reference, [0.5, -0.1, 0.2]) == pytest.approx(0.2)
    assert on_host(losses.prospect_reference, [0.5, -1.0]) == 0


def test_dpo_is_least_at_the_regularised_optimum(gradient):
    """Row J: the optimum is that of the Bradley-Terry reward under the KL, whatever pairs are drawn."""
    loss = LOSSES["dpo"](name="dpo", beta=BETA)
    assert np.abs(gradient(lambda x: expected_loss(loss, x), regularised_optimum(BETA))).max() < 1e-7
    assert np.abs(gradient(lambda x: expected_loss(loss, x), regularised_optimum(2 * BETA))).max() > 1e-3
    weights = preferred() * np.linspace(0.2, 2, 6)[np.sort(PAIRS, axis=1) @ [1, 3] % 6]  # other pairs, as likely labels
    assert np.abs(gradient(lambda x: expected_loss(loss, x, weights), regularised_optimum(BETA))).max() < 1e-7


def test_robust_dpo_has_the_true_optimum_under_flipped_labels(gradient):
    noise = 0.2
    flipped = (1 - noise) * preferred() + noise * (1 - preferred())
    robust = LOSSES["robust"](name="robust", beta=BETA, label_noise=noise)
    plain = LOSSES["dpo"](name="dpo", beta=BETA)
    assert np.abs(gradient(lambda x: expected_loss(robust, x, flipped), regularised_optimum(BETA))).max() < 1e-7
    assert np.abs(gradient(lambda x: expected_loss(plain, x, flipped), regularised_optimum(BETA))).max() > 1e-2


def test_ipo_moves_two_answers_to_its_margin(gradient):
    """Of one pair: mean log-ratios apart by (2 p - 1) / (2 beta)."""
    loss, p, length = LOSSES["ipo"](name="ipo", beta=0.5), 0.8, np.array([1.0, 3.0])

    def expected(ratios):
        sides = [
            Answers(ratios[i : i + 1], ops.convert_to_tensor(np.zeros(1)), ops.convert_to_tensor(length[i : i + 1]))
            for i in (0, 1)
        ]
        return p * loss.of_pairs(*sides, 0.0)[0] + (1 - p) * loss.of_pairs(*sides[::-1], 0.0)[0]

    margin = (2 * p - 1) / (2 * 0.5)
    for chosen in (0.0, 0.4):
        assert np.abs(gradient(expected, np.array([chosen, 3 * (chosen - margin)]))).max() < 1e-7
        assert np.abs(gradient(expected, np.array([chosen, 3 * (chosen + margin)]))).max() > 0.1


@pytest.mark.parametrize("name", ["simpo", "orpo", "cpo", "kto", "dpo"])
def test_the_others_are_least_where_scipy_finds_them_least(gradient, name):
    """Their expected loss, with the tuning term where they have one, by numpy and scipy from the papers' formulas."""
    from scipy.optimize import minimize

    loss = LOSSES[name](name=name, **({"label_smoothing": 0.1} if name == "dpo" else {}))

    def tuned(logits):
        chosen = ops.take(ops.log_softmax(logits), PAIRS[:, 0])
        nll = -ops.sum(ops.convert_to_tensor(preferred()) * chosen) / float(preferred() @ LENGTHS[PAIRS[:, 0]])
        return expected_loss(loss, logits, kl=0.1) + loss.nll_weight * nll

    def by_numpy(logits):
        log_pi, log_ref = log_softmax(logits), log_softmax(REFERENCE)
        mean = log_pi / LENGTHS
        i, j = PAIRS.T
        softplus = lambda x: np.logaddexp(0, x)  # noqa: E731
        if name == "simpo":
            of_pair = softplus(-(2.0 * (mean[i] - mean[j]) - 1.0))
        elif name == "orpo":
            odds = mean - np.log1p(-np.exp(mean))
            of_pair = 0.1 * softplus(-(odds[i] - odds[j]))
        elif name == "cpo":
            of_pair = softplus(-0.1 * (log_pi[i] - log_pi[j]))
        elif name == "dpo":
            x = 0.1 * ((log_pi - log_ref)[i] - (log_pi - log_ref)[j])
            of_pair = 0.9 * softplus(-x) + 0.1 * softplus(x)
        else:
            ratio = log_pi - log_ref
            of_pair = (1 / (1 + np.exp(0.1 * (ratio[i] - 0.1))) + 1 / (1 + np.exp(0.1 * (0.1 - ratio[j])))) / 2
        nll = -(preferred() @ log_pi[i]) / (preferred() @ LENGTHS[i])
        return np.mean(preferred() * of_pair) + (nll if name in ("orpo", "cpo") else 0)

    assert float(tuned(ops.convert_to_tensor(START))) == pytest.approx(by_numpy(START), rel=1e-6)
    # Where scipy stops, our gradient is as flat; a loss without a reference may fall for ever, so the way is bounded.
    best = minimize(by_numpy, START, bounds=[(-3, 3)] * 4, options={"ftol": 1e-15, "gtol": 1e-9})
    slope = gradient(tuned, best.x)
    free = np.abs(best.x) < 3 - 1e-9
    assert np.abs(slope[free]).max(initial=0) < 1e-5
    assert (slope[~free] * np.sign(best.x[~free]) < 0).all()
    assert np.abs(gradient(tuned, START)).max() > 1e-3


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_better_chosen_answer_lowers_each_loss(gradient, name):
    loss, ones = LOSSES[name](name=name), np.ones(1)

    def of(x):
        chosen, rejected = (
            Answers(x[i : i + 1], ops.convert_to_tensor(-2 * ones), ops.convert_to_tensor(2 * ones)) for i in (0, 1)
        )
        return loss.of_pairs(chosen, rejected, 0.0)[0]

    up, down = gradient(of, np.array([-2.5, -1.5]))
    assert up < 0 < down


def test_rewards_are_what_the_losses_compare():
    sides = [Answers(np.array([-2.0]), np.array([-3.0]), np.array([4.0])) for _ in range(2)]
    found = {name: float(loss(name=name).rewards(sides[0])[0]) for name, loss in LOSSES.items()}
    assert found == pytest.approx(
        {"dpo": 0.1, "ipo": 0.025, "robust": 0.1, "simpo": -1.0, "orpo": -0.05, "kto": 0.1, "cpo": -0.2}
    )
    assert LOSSES["dpo"](name="dpo", length_normalized=True).rewards(sides[0])[0] == pytest.approx(0.025)


def softplus(x):
    return np.log1p(np.exp(x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ODDS = [np.exp(-0.5) / (1 - np.exp(-0.5)), np.exp(-2.5) / (1 - np.exp(-2.5))]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dpo", {"beta": 0.2, "label_smoothing": 0.1}, softplus(-0.3) + 0.1 * 0.3),
        ("dpo", {"beta": 0.2, "length_normalized": True}, softplus(-0.1)),
        ("ipo", {"beta": 0.25}, (0.5 - 2) ** 2),
        ("robust", {"beta": 0.2, "label_noise": 0.1}, (0.9 * softplus(-0.3) - 0.1 * softplus(0.3)) / 0.8),
        ("simpo", {"beta": 1.5, "gamma": 0.5, "label_smoothing": 0.1}, softplus(-2.5) + 0.1 * 2.5),
        ("orpo", {"beta": 0.3}, 0.3 * softplus(np.log(ODDS[1] / ODDS[0]))),
        (
            "kto",
            {"beta": 0.5, "desirable_weight": 1.5, "undesirable_weight": 0.8},
            (1.5 * (1 - sigmoid(0.5 * (1 - 0.3))) + 0.8 * (1 - sigmoid(0.5 * (0.3 + 0.5)))) / 2,
        ),
        ("cpo", {"beta": 0.2, "label_smoothing": 0.1}, softplus(-0.6) + 0.1 * 0.6),
    ],
)
def test_each_loss_by_hand_with_options_of_its_own(name, options, expected):
    """Log-ratios 1 and -1/2, a token 1/4 and -1/4; log-probabilities a token -1/2 and -5/2; a KL of 0.3."""
    chosen, rejected = (
        Answers(*(ops.convert_to_tensor(np.float32([number])) for number in numbers))
        for numbers in ((-2.0, -3.0, 4.0), (-5.0, -4.5, 2.0))
    )
    found = ops.convert_to_numpy(LOSSES[name](name=name, **options).of_pairs(chosen, rejected, 0.3))
    assert found == pytest.approx([expected], rel=1e-6)
