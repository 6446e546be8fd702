"""The win rate that would be left were both answers equally long. Numpy only.

Source: Dubois et al. 2024, arXiv:2404.04475, section 3: a logistic regression of the preference on which policy
answered and on tanh of the difference of lengths over its standard deviation, read at a difference of 0.

Departures:

1. The term for how hard each instruction is is left out. With two policies and one comparison of each prompt nothing
   tells it from the preference itself; the paper takes it from a fit over many models.
2. The penalty is a small fixed ridge, in place of one that is chosen by cross-validation: 0.1 on the policy's term,
   0.01 on that of the length, where a prompt adds at most 0.25. It only keeps the terms finite where one side wins
   throughout, or where length decides all.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from pipelines.measures.intervals import Interval

RIDGE = (0.1, 0.01)  # of the policy's term and of the length's
Z = 1.959964  # 95 % of a normal distribution lie within


def length_controlled(
    outcomes: ArrayLike, differences: ArrayLike, groups: ArrayLike | None = None
) -> tuple[float, Interval | None]:
    """Length-controlled win rate, with its 95 % interval over prompts.

    Args:
        outcomes: float (n,), n >= 1. 1 where the policy wins, 0.5 for a tie, 0 where it loses.
        differences: float (n,). Length of the policy's answer minus that of the other, in any unit.
        groups: (n,), equal where prompts are the same; default each has its own.

    Returns:
        The rate, in (0, 1). The interval, of the policy's term carried over, from the covariance that allows for groups
        and for the pull of each outcome on the fit (MacKinnon and White 1985, HC3), or from that of the model without
        its ties, whichever is larger: the first is near 0 where length decides all. None with fewer than three groups
        or where all outcomes are alike, as nothing then says how far they spread.
    """
    outcomes, features = np.asarray(outcomes, np.float64), length_features(differences)
    weights = fit(outcomes, features)
    rate = 1 / (1 + math.exp(-weights[0]))
    _, place = np.unique(np.arange(len(outcomes)) if groups is None else np.asarray(groups), return_inverse=True)
    count = int(place.max()) + 1
    if count < 3 or np.ptp(outcomes) == 0:
        return rate, None
    predicted = 1 / (1 + np.exp(-features @ weights))
    inverse = np.linalg.inv(_curvature(features, predicted))
    leverage = np.einsum("ni,ij,nj->n", features, inverse, features) * predicted * (1 - predicted)
    scores = np.zeros((count, 2))
    np.add.at(scores, place, features * ((outcomes - predicted) / (1 - leverage))[:, None])
    of_scores = float((inverse @ (scores.T @ scores) @ inverse)[0, 0])
    variance = max(of_scores, float(np.mean(outcomes != 0.5)) * float(inverse[0, 0]))
    half = Z * math.sqrt(variance)
    low, high = (1 / (1 + math.exp(-(weights[0] + side * half))) for side in (-1, 1))
    return rate, (low, high)


def length_features(differences: ArrayLike) -> np.ndarray:
    """What the regression sees: 1, and tanh of the difference over its standard deviation; float64 (n, 2).

    Args:
        differences: float (n,). Where all are the same the second is 0, as it then tells nothing.
    """
    differences = np.asarray(differences, np.float64)
    spread = float(differences.std())
    scaled = np.tanh(differences / spread) if spread > 0 else np.zeros(len(differences))
    return np.stack([np.ones(len(differences)), scaled], axis=1)


def fit(outcomes: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The weights of a logistic regression with `RIDGE`, float64 (2,), by Newton's method with halved steps.

    Args:
        outcomes: float64 (n,) in [0, 1]; one in between counts as that share of a win. features: float64 (n, 2).
    """
    weights, ridge = np.zeros(2), np.array(RIDGE)

    def loss(at: np.ndarray) -> float:
        logits = features @ at
        return float((np.logaddexp(0, logits) - outcomes * logits).sum() + (ridge * at**2).sum() / 2)

    for _ in range(200):
        predicted = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (outcomes - predicted) - ridge * weights
        step = np.linalg.solve(_curvature(features, predicted), slope)
        while loss(weights + step) > loss(weights) + 1e-12 and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _curvature(features: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return (features * (predicted * (1 - predicted))[:, None]).T @ features + np.diag(RIDGE)
