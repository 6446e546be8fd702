"""Win, tie and loss rates, and rank correlation. Numpy only."""

import math

import numpy as np
from numpy.typing import ArrayLike


def outcome_rates(outcomes: ArrayLike) -> dict[str, float]:
    """Win, tie and loss rates of the first of two policies.

    Args:
        outcomes: float (n,), n >= 1. 1 win, 0.5 tie, 0 loss.

    Returns:
        dict: `win_rate` (wins + ties / 2), `wins`, `tie_rate`, `loss_rate`; `wins`, `tie_rate` and `loss_rate` sum to
            1.
    """
    outcomes = np.asarray(outcomes, np.float64)
    if outcomes.size == 0 or not np.isin(outcomes, (0.0, 0.5, 1.0)).all():
        raise ValueError(
            "Outcomes must be 1 (win), 0.5 (tie) or 0 (loss), at least one. Received: " + repr(outcomes[:8])
        )
    return {
        "win_rate": float(outcomes.mean()),
        "wins": float(np.mean(outcomes == 1)),
        "tie_rate": float(np.mean(outcomes == 0.5)),
        "loss_rate": float(np.mean(outcomes == 0)),
    }


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation; ties share their mean rank.

    Args:
        first, second: float (n,), n >= 2.

    Returns:
        float in [-1, 1]; NaN where one of them is constant.
    """
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan


def _ranks(values: ArrayLike) -> np.ndarray:
    _, index, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[index]


def sign_test(positive: int, negative: int) -> float:
    """One-sided sign test: the chance of so many positive signs, or more, where either sign is equally likely.

    Args:
        positive, negative: int >= 0. Signs of paired differences; those of 0 are left out.

    Returns:
        float in (0, 1], the exact binomial tail; 1 without signs. The side must have been named beforehand.

    Source: Dixon and Mood 1946, The Statistical Sign Test.
    """
    if min(positive, negative) < 0:
        raise ValueError(f"Signs are counted from 0. Received: positive={positive}, negative={negative}")
    signs = positive + negative
    return sum(math.comb(signs, count) for count in range(positive, signs + 1)) / 2**signs
