"""A two-layer Gemma under each preference loss, on a problem small enough to enumerate: two prompts of different
length, answers of at most two tokens of eight, a stop token that ends some early, a Bradley-Terry rater of known
rewards.

The loss is the exact mean over all pairs of answers, each in both orders as often as the rater prefers them, so that
nothing is sampled: what the model ends at is the loss' own optimum, as near as its weights can come.
"""

import itertools

import numpy as np
import pytest
from keras import ops
from scipy.optimize import minimize

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig
from pipelines.stages.preference_optimization.answer_batches import Answer, answer_batches
from pipelines.stages.preference_optimization.losses.base import Answers
from pipelines.stages.preference_optimization.losses.registry import LOSSES
from pipelines.stages.preference_optimization.scoring import AnswerScorer, answer_log_probs
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

VOCABULARY, STOP = 8, 1
PROMPTS = [[2, 5], [2, 6, 3, 7]]
OTHERS = [token for token in range(VOCABULARY) if token != STOP]
ANSWERS = [[STOP], *([first, second] for first in OTHERS for second in range(VOCABULARY))]
LENGTHS = np.array([len(answer) for answer in ANSWERS], float)
FIRST, SECOND = np.array(list(itertools.permutations(range(len(ANSWERS)), 2))).T
REWARDS = np.random.default_rng(7).normal(size=(len(PROMPTS), len(ANSWERS)))
PREFERRED = 1 / (1 + np.exp(REWARDS[:, SECOND] - REWARDS[:, FIRST]))
BETA, KL, STEPS = 0.5, 0.05, 1500


def items():
    return [(Answer([*prompt, *answer], len(answer)),) for prompt in PROMPTS for answer in ANSWERS]


def policy():
    sizes = {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_dim": 32, "intermediate_dim": 64}
    return GemmaCausalLM(GemmaBackbone(GemmaConfig(vocabulary_size=VOCABULARY, num_layers=2, **sizes), seed=5))


def of_all(model):
    """Log-probability of every answer to each prompt: (2, 57)."""
    return AnswerScorer(model, 1.0).of_items(items(), len(items()), 16)[:, 0].reshape(REWARDS.shape).astype(np.float64)


def expected_loss(loss, nll_weight, log_probs, reference, shares, xp):
    """Mean over prompts and ordered pairs, plus the tuning term; the same lines for tensors and, by numpy, arrays."""

    def constant(values):
        values = np.asarray(values, reference.dtype)
        return values if xp is np else ops.convert_to_tensor(values)

    total = 0.0
    for prompt in range(len(PROMPTS)):
        here = slice(prompt * len(ANSWERS), (prompt + 1) * len(ANSWERS))
        sides = [
            Answers(xp.take(log_probs[here], rows), constant(reference[here][rows]), constant(LENGTHS[rows]))
            for rows in (FIRST, SECOND)
        ]
        weights = constant(shares[prompt])
        nll = -xp.sum(weights * sides[0].log_probs) / float(shares[prompt] @ LENGTHS[FIRST])
        total = total + (2 * xp.mean(weights * loss(*sides)) + nll_weight * nll) / len(PROMPTS)
    return total


def trained(name, shares=PREFERRED, **options):
    """The model at the end: log-probabilities of all answers before and after, and the loss that it reached."""
    model, loss = policy(), LOSSES[name](name=name, **options)
    reference = of_all(model)
    constant = reference.reshape(-1).astype(np.float32)

    def formula(chosen, rejected):
        return loss.of_pairs(chosen, rejected, KL)

    def loss_function(model, batch):
        log_probs = answer_log_probs(model, batch, 1.0)
        return expected_loss(formula, loss.nll_weight, log_probs, constant, shares, ops), {}

    settings = OptimizerSettings(
        3e-3, schedule="cosine", warmup_fraction=0.02, weight_decay=0.0, clip_norm=10.0, beta_2=0.99
    )
    trainer = Trainer(model, loss_function, settings, STEPS, count_units=lambda batch: 1)
    rows = np.arange(len(items()))
    (batch,) = next(answer_batches(items(), [[rows]], len(rows), [8], model.config, may_pack=False)())
    for _ in range(STEPS):
        reached = trainer.update([batch])["loss"]
    return reference, of_all(model), reached


def total_variation(log_probs, optimum):
    return 0.5 * np.abs(np.exp(log_probs) - np.exp(optimum)).sum(axis=1).max()


def normalized(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_the_answers_are_all_there_are():
    model = policy()
    assert np.exp(of_all(model)).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert len({len(prompt) for prompt in PROMPTS}) == 2 and set(LENGTHS) == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "robust"])
def test_dpo_ends_at_the_optimum_of_the_reward_under_the_kl(name):
    noise = 0.15 if name == "robust" else 0.0
    shares = (1 - noise) * PREFERRED + noise * (1 - PREFERRED)
    options = {"label_noise": noise} if noise else {}
    reference, found, _ = trained(name, shares, beta=BETA, **options)
    optimum = normalized(reference + REWARDS / BETA)
    assert total_variation(reference, optimum) > 0.3
    assert total_variation(found, optimum) < 0.05


@pytest.mark.slow
def test_ipo_ends_where_its_margins_are_nearest_to_what_it_asks_for():
    """By least squares: the mean log-ratio of answer i is the mean over j of (2 p_ij - 1) / (2 beta), but for a
    constant that makes the probabilities sum to 1."""
    reference, found, _ = trained("ipo", beta=BETA)
    wanted = ((2 * PREFERRED - 1) / (2 * BETA)).reshape(len(PROMPTS), len(ANSWERS), -1).sum(axis=2) / len(ANSWERS)
    optimum = np.zeros_like(reference)
    for prompt in range(len(PROMPTS)):
        low, high = -50.0, 50.0
        for _ in range(200):
            shift = (low + high) / 2
            optimum[prompt] = reference[prompt] + LENGTHS * (wanted[prompt] + shift)
            low, high = (shift, high) if np.exp(optimum[prompt]).sum() < 1 else (low, shift)
    assert total_variation(reference, optimum) > 0.1
    assert total_variation(found, optimum) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simpo", "orpo", "cpo", "kto"])
def test_the_others_come_as_low_as_scipy(name):
    loss = LOSSES[name](name=name)
    reference, found, reached = trained(name)
    flat = reference.reshape(-1)

    def softplus(x):
        return np.logaddexp(0, x)

    def formula(chosen, rejected):
        if name == "simpo":
            return softplus(-(2.0 * (chosen.mean_log_probs - rejected.mean_log_probs) - 1.0))
        if name == "cpo":
            return softplus(-0.1 * (chosen.log_probs - rejected.log_probs))
        if name == "kto":
            sides = chosen.log_ratios - KL, KL - rejected.log_ratios
            return sum(1 / (1 + np.exp(0.1 * side)) for side in sides) / 2
        odds = [side.mean_log_probs - np.log(-np.expm1(side.mean_log_probs)) for side in (chosen, rejected)]
        return 0.1 * softplus(odds[1] - odds[0])

    def of_logits(logits):
        log_probs = np.minimum(normalized(logits.reshape(REWARDS.shape)), -1e-6).reshape(-1)
        return float(expected_loss(formula, loss.nll_weight, log_probs, flat, PREFERRED, np))

    best = minimize(of_logits, flat, method="L-BFGS-B", options={"maxiter": 300, "maxfun": 60_000})
    assert reached == pytest.approx(of_logits(found.reshape(-1)), abs=1e-4)
    assert of_logits(flat) > best.fun + 5e-3
    assert reached < best.fun + 1e-3
