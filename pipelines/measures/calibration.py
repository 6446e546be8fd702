"""Whether a model is right as often as it says, and how far noise alone moves that figure. Numpy only."""

import numpy as np
from numpy.typing import ArrayLike

from pipelines.measures.intervals import score_interval

BINS = 10
RESAMPLES = 1000
BLOCK = 2_000_000  # random numbers held at once


def calibration_error(probabilities: ArrayLike, is_right: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: how far stated confidence lies from the share of right answers.

    Args:
        probabilities: float (n,) in [0.5, 1]. Confidence in the preferred answer.
        is_right: bool (n,). True where the preferred answer was the chosen one.
        bins: int. Equal intervals of [0.5, 1].

    Returns:
        Mean over the pairs of |share right - mean confidence| of their bin, in [0, 1].

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3, with confidences folded to [0.5, 1] as there are two classes.
    """
    surprise = np.asarray(is_right, np.float64) - np.asarray(probabilities, np.float64)
    return float(np.abs(surprise @ _membership(probabilities, bins)).sum() / len(surprise))


def calibration_figures(
    probabilities: ArrayLike,
    is_right: ArrayLike,
    groups: ArrayLike,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    bins: int = BINS,
) -> dict:
    """The calibration error with an interval, and what a perfect model would read.

    The error is a mean of absolute values, so noise only ever adds to it: with few pairs a perfect model is far from 0.
    Labels drawn anew from the stated confidences say how far (consistency resampling; Bröcker and Smith 2007), with the
    correlation that the labels of one prompt have.

    The interval covers at least as often as it says, whatever the gaps. Upper end: that of the mean of right - stated,
    each bin with the sign it was found to have; some other signs may be true, and then the error is below it all the
    more. Lower end: what exceeds all that a perfect model reads in 97.5 % of cases, as the error is at most the true
    one plus what noise alone would read; and no higher than that mean's.

    Args:
        probabilities, is_right, bins: as of `calibration_error`.
        groups: (n,), equal for pairs of one prompt.
        rng: draws the labels, (resamples, n) of them.

    Returns:
        `calibration_error`, `calibration_error_ci95` [low, high], `calibration_error_if_perfect`: the mean of what a
        perfect model with these confidences would read.
    """
    probabilities = np.asarray(probabilities, np.float64)
    surprise = np.asarray(is_right, np.float64) - probabilities
    member = _membership(probabilities, bins)
    _, groups = np.unique(np.asarray(groups), return_inverse=True)
    found = calibration_error(probabilities, is_right, bins)
    perfect = _perfect_readings(
        probabilities, member, groups, _correlation(surprise, probabilities, groups), rng, resamples
    )
    signs = member @ np.where(surprise @ member >= 0, 1.0, -1.0)
    low, high = score_interval(surprise * signs, (-1.0, 1.0), groups)
    above_noise = found - float(np.quantile(perfect, 0.975))
    return {
        "calibration_error": found,
        "calibration_error_ci95": [max(0.0, min(above_noise, low)), high],
        "calibration_error_if_perfect": float(perfect.mean()),
    }


def _membership(probabilities: ArrayLike, bins: int) -> np.ndarray:
    """Which bin each confidence is in: float (n, bins), a 1 a row. 1.0 is in the last one."""
    probabilities = np.asarray(probabilities, np.float64)
    bin_of = np.minimum(((probabilities - 0.5) * 2 * bins).astype(int), bins - 1)
    return np.eye(bins)[bin_of]


def _correlation(surprise: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> float:
    """How alike the labels of one prompt are beyond their confidences, in [0, 1]: the products of their surprises over
    what these would be if all were one draw."""
    spread = np.sqrt(probabilities * (1 - probabilities))
    products, most = (
        float((np.bincount(groups, values) ** 2).sum() - (values**2).sum()) for values in (surprise, spread)
    )
    return min(1.0, max(0.0, products / most)) if most > 0 else 0.0


def _perfect_readings(
    probabilities: np.ndarray,
    member: np.ndarray,
    groups: np.ndarray,
    correlation: float,
    rng: np.random.Generator,
    resamples: int,
) -> np.ndarray:
    """Calibration errors of a perfect model: float (resamples,). In a share `correlation` of the draws of a prompt all
    its labels come from one uniform number."""
    count, prompts = len(probabilities), int(groups.max()) + 1
    found = []
    for start in range(0, resamples, max(1, BLOCK // count)):
        rows = min(max(1, BLOCK // count), resamples - start)
        uniform = rng.random((rows, count))
        if correlation > 0:
            is_one_draw = rng.random((rows, prompts)) < correlation
            uniform = np.where(is_one_draw[:, groups], rng.random((rows, prompts))[:, groups], uniform)
        found.append(np.abs(((uniform < probabilities) - probabilities) @ member).sum(axis=1) / count)
    return np.concatenate(found)
