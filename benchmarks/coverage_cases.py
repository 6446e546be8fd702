"""What `benchmarks/coverage.py` simulates: for each figure with an interval, answers of `samples` kinds to each of some
prompts, alike within a prompt, whose true mean is known.

Rates are the share of right answers, of won comparisons, of pairs that a reward model ranks rightly, or of good
responses. `ALIKE` is the correlation within a prompt, where nothing else makes it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gemma_keras.random import generator
from pipelines.algorithms.preference import preference_probability, regrets
from pipelines.measures.calibration import calibration_figures
from pipelines.measures.intervals import mean_interval, score_interval, unskewed_t_interval
from pipelines.measures.metrics import accuracy_by_margin

RATES = (0.5, 0.9, 0.99)
ALIKE = 0.3
TIES = {0.5: 0.3, 0.9: 0.1, 0.99: 0.01}
IDENTICAL = 0.1  # share of a prompt's pairs that read the same and are dropped
SKILL = {0.5: None, 0.9: 1.65, 0.99: 3.95}  # log of how well a reward model tells responses apart, None: not at all
CONFIDENCE = {0.5: 0.05, 0.9: 5.6, 0.99: 58.0}  # size of the true log odds of a pair

Measured = tuple[float, tuple[float, float], float]
"""Estimate, interval, truth."""
Values = tuple[np.ndarray, np.ndarray]
"""Values and the prompt of each."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure with an interval.

    Attributes:
        name: in the table.
        measure: from (rng, rate, prompts, samples).
        conservative_to: up to so many prompts it may cover more than it says; the page says why.
        is_comparison: True for an interval that the project does not print.
    """

    name: str
    measure: Callable[[np.random.Generator, float, int, int], Measured]
    conservative_to: int = 0
    is_comparison: bool = False


def of_mean(
    draw: Callable[..., Values],
    bounds: tuple[float, float] | None,
    truth: Callable[[float], float],
    interval: Callable[..., Any] | None = None,
) -> Callable[..., Measured]:
    """The mean of what `draw` draws; `truth` of the rate. `interval`: another one, of (values, groups, rng)."""

    def measure(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Measured:
        values, groups = draw(rng, rate, prompts, samples)
        found = interval(values, groups, rng) if interval else mean_interval(values, groups, bounds)
        return float(values.mean()), found, truth(rate)

    return measure


def every_value_counted(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """As if each had a prompt of its own: of zeros and ones Wilson's interval."""
    return score_interval(values)


def percentile_bootstrap(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Over prompts, equally many values each."""
    means = values.reshape(groups[-1] + 1, -1).mean(axis=1)
    low, high = np.quantile(means[rng.integers(0, means.size, (1000, means.size))].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def students_t(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Over prompts; the interval of a sample with these means and spread that is not skewed."""
    means = values.reshape(groups[-1] + 1, -1).mean(axis=1)
    half = np.ptp(unskewed_t_interval(np.linspace(-1, 1, means.size)) or (0, 0)) / 2
    half *= means.std() / np.linspace(-1, 1, means.size).std()
    return float(means.mean() - half), float(means.mean() + half)


def groups_of(prompts: int, samples: int) -> np.ndarray:
    return np.repeat(np.arange(prompts), samples)


def chances(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> np.ndarray:
    """Probability of a right answer to each prompt, one a sample: beta, so that answers correlate by `ALIKE`."""
    spread = (1 - ALIKE) / ALIKE
    return np.repeat(rng.beta(rate * spread, (1 - rate) * spread, prompts), samples)


def right_answers(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    chance = chances(rng, rate, prompts, samples)
    return (rng.random(chance.size) < chance).astype(float), groups_of(prompts, samples)


def outcomes(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    """1, 1/2 and 0: a share `TIES` of ties."""
    spread, ties = (1 - ALIKE) / ALIKE, TIES[rate]
    shares = np.array([rate - ties / 2, ties, 1 - rate - ties / 2])
    of_prompt = np.repeat(rng.dirichlet(shares * spread, prompts), samples, axis=0)
    uniform = rng.random(prompts * samples)
    won = uniform < of_prompt[:, 0]
    tied = ~won & (uniform < of_prompt[:, 0] + of_prompt[:, 1])
    return won + tied / 2, groups_of(prompts, samples)


def gold_of(rng: np.random.Generator, chance: np.ndarray, manners: float) -> np.ndarray:
    """A gold reward as the built-in task's: right, in the right place, polite by halves, brief by eighths."""
    right = rng.random(chance.size) < chance
    polite = rng.choice([0.0, 0.5, 1.0], size=chance.size, p=[0.95 - manners, 0.05, manners])
    brief = 1 - np.minimum(rng.poisson(2, chance.size), 8) / 8
    return 0.6 * right + 0.2 * polite + 0.2 * brief


@functools.cache
def mean_gold(manners: float) -> float:
    """The part of the gold reward that is not about being right."""
    return float(gold_of(generator(0, "gold"), np.zeros(4_000_000), manners).mean())


def gold(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    return gold_of(rng, chances(rng, rate, prompts, samples), 0.4), groups_of(prompts, samples)


def gold_differences(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    """A policy with better manners, that is right more often, less a baseline on the same prompts."""
    chance = chances(rng, rate, prompts, samples)
    return gold_of(rng, chance, 0.9) - gold_of(rng, 0.9 * chance, 0.4), groups_of(prompts, samples)


def accuracy_differences(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    chance = chances(rng, rate, prompts, samples)
    policy, baseline = rng.random((2, chance.size)) < np.stack([chance, 0.9 * chance])
    return policy.astype(float) - baseline, groups_of(prompts, samples)


def rewards(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    """Good responses around 1 and bad ones around -1, on easy and hard prompts."""
    good = rng.random(prompts * samples) < chances(rng, rate, prompts, samples)
    easy = np.repeat(rng.normal(0, 0.5, prompts), samples)
    return np.where(good, 1.0, -1.0) + easy + rng.normal(0, 1, good.size), groups_of(prompts, samples)


def log_normal_rewards(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    """A tail too heavy for any interval at few prompts; `rate` has no say."""
    tail = np.repeat(rng.normal(0, ALIKE**0.5, prompts), samples) + rng.normal(0, (1 - ALIKE) ** 0.5, prompts * samples)
    return -np.exp(tail), groups_of(prompts, samples)


def reward_differences(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    """Of two policies on the same prompts, of which the second is good in half of the cases."""
    policy, groups = rewards(rng, rate, prompts, samples)
    return policy - rewards(rng, 0.5, prompts, samples)[0], groups


def skewed_rewards(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    """An exponential tail downwards, in prompts as in responses; `rate` has no say."""
    tail = np.repeat(rng.gamma(ALIKE, 1, prompts), samples) + rng.gamma(1 - ALIKE, 1, prompts * samples)
    return -tail, groups_of(prompts, samples)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of responses that a reward model ranks."""

    groups: np.ndarray
    margins: np.ndarray
    probabilities: np.ndarray


def pairs(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Pairs:
    """All pairs of `samples` responses to each prompt, of one sample a single pair; labelled by a noisy rater, scored
    by a model that tells responses apart better on some prompts than on others."""
    quality = rng.normal(size=(prompts, max(samples, 2)))
    skill = 0.0 if SKILL[rate] is None else np.exp(rng.normal(SKILL[rate], 1, (prompts, 1)))
    reward = skill * quality + rng.normal(size=quality.shape)
    first, second = np.triu_indices(quality.shape[1], 1)
    difference, margin = ((one[:, first] - one[:, second]).ravel() for one in (quality, reward))
    # Qualities are far apart beside the rater's noise, so that its labels leave room for a rate of 0.99.
    probability = preference_probability(difference, 0, scale=0.002 if rate == 0.99 else 0.1)
    is_chosen = np.where(rng.random(margin.size) < probability, 1, -1)
    kept = (rng.random(margin.size) >= IDENTICAL) | (samples == 1)
    chosen_probability = np.where(is_chosen > 0, probability, 1 - probability)
    return Pairs(groups_of(prompts, len(first))[kept], (is_chosen * margin)[kept], chosen_probability[kept])


def ranked_rightly(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    found = pairs(rng, rate, prompts, samples)
    return (found.margins > 0).astype(float), found.groups


def given_away(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Values:
    found = pairs(rng, rate, prompts, samples)
    return regrets(found.probabilities, found.margins), found.groups


def bucket_accuracy(place: int) -> Callable[..., Measured]:
    """Of the closest (0) or clearest (-1) quarter of the pairs; the truth is that of all pairs with such margins."""

    def measure(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Measured:
        found = pairs(rng, rate, prompts, samples)
        bucket = accuracy_by_margin(found.margins, found.groups)[place]
        sizes, right_below = by_margin(rate)
        first, last = np.searchsorted(sizes, [bucket["margin_from"], bucket["margin_to"]])
        truth = (right_below[last] - right_below[first]) / (last - first) if last > first else bucket["accuracy"]
        return bucket["accuracy"], tuple(bucket["accuracy_ci95"]), float(truth)

    return measure


@functools.cache
def many_pairs(rate: float) -> Pairs:
    return pairs(generator(0, "truth", f"{rate}"), rate, 2_000_000, 1)


@functools.cache
def by_margin(rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Margins of many pairs in rising order, and how many of those before each are ranked rightly."""
    margins = many_pairs(rate).margins
    margins = margins[np.argsort(np.abs(margins))]
    return np.abs(margins), np.concatenate([[0], np.cumsum(margins > 0)])


def log_odds(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> np.ndarray:
    """True log odds of pairs, at least 0: alike within a prompt."""
    return CONFIDENCE[rate] * np.abs(
        np.repeat(rng.normal(0, 0.8, prompts), samples) + rng.normal(0, 0.5, prompts * samples) + 0.2
    )


def calibration(claim: float) -> Callable[..., Measured]:
    """The model states `claim` times the true log odds: 1 is a perfect model, 2 an overconfident one. A share `ALIKE`
    of the prompts has all its labels from one draw."""

    def measure(rng: np.random.Generator, rate: float, prompts: int, samples: int) -> Measured:
        odds, groups = log_odds(rng, rate, prompts, samples), groups_of(prompts, samples)
        is_one_draw = np.repeat(rng.random(prompts) < ALIKE, samples)
        uniform = np.where(is_one_draw, np.repeat(rng.random(prompts), samples), rng.random(odds.size))
        is_right = uniform < preference_probability(odds, 0)
        found = calibration_figures(preference_probability(claim * odds, 0), is_right, groups, rng)
        truth = calibration_truth(claim, rate)
        return found["calibration_error"], tuple(found["calibration_error_ci95"]), truth

    return measure


@functools.cache
def calibration_truth(claim: float, rate: float) -> float:
    odds = log_odds(generator(0, "calibration", f"{rate}"), rate, 4_000_000, 1)
    stated, true = preference_probability(claim * odds, 0), preference_probability(odds, 0)
    place = np.minimum(((stated - 0.5) * 20).astype(int), 9)
    return float(np.abs(np.bincount(place, true - stated)).sum() / odds.size)


@functools.cache
def true_accuracy(rate: float) -> float:
    return float(np.mean(many_pairs(rate).margins > 0))


@functools.cache
def true_regret(rate: float) -> float:
    return float(np.mean(regrets(many_pairs(rate).probabilities, many_pairs(rate).margins)))


def true_gold(rate: float) -> float:
    return 0.6 * rate + mean_gold(0.4)


def true_gold_difference(rate: float) -> float:
    return 0.06 * rate + mean_gold(0.9) - mean_gold(0.4)


FIGURES = (
    Figure("right answers, gold parts of 0 or 1", of_mean(right_answers, (0, 1), lambda rate: rate)),
    Figure("win rate with ties", of_mean(outcomes, (0, 1), lambda rate: rate)),
    Figure("gold reward", of_mean(gold, (0, 1), true_gold), 20),
    Figure("difference of right answers", of_mean(accuracy_differences, (-1, 1), lambda rate: 0.1 * rate), 20),
    Figure("difference of gold rewards", of_mean(gold_differences, (-1, 1), true_gold_difference), 20),
    Figure("learned reward", of_mean(rewards, None, lambda rate: 2 * rate - 1)),
    Figure("learned reward, skewed", of_mean(skewed_rewards, None, lambda rate: -1.0)),
    Figure("difference of learned rewards", of_mean(reward_differences, None, lambda rate: 2 * rate - 1)),
    Figure("reward model accuracy", of_mean(ranked_rightly, (0, 1), true_accuracy), 64),
    Figure("reward model regret", of_mean(given_away, (0, 1), true_regret), 64),
    Figure("accuracy, closest quarter", bucket_accuracy(0), 64),
    Figure("accuracy, clearest quarter", bucket_accuracy(-1), 64),
    Figure("calibration error, perfect model", calibration(1.0), 600),
    Figure("calibration error, overconfident", calibration(2.0), 600),
    Figure(
        "(reward model accuracy, every pair counted)",
        of_mean(ranked_rightly, None, true_accuracy, every_value_counted),
        is_comparison=True,
    ),
    Figure(
        "(win rate, percentile bootstrap)",
        of_mean(outcomes, None, lambda rate: rate, percentile_bootstrap),
        is_comparison=True,
    ),
    Figure("(gold reward, Student's t)", of_mean(gold, None, true_gold, students_t), is_comparison=True),
    Figure("(learned reward, log-normal)", of_mean(log_normal_rewards, None, lambda rate: -math.exp(0.5)), 0, True),
)
