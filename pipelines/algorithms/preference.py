"""The Bradley-Terry model of a rater, and what the best possible judge of its labels can reach. Numpy, float64.

Numpy because labels are drawn on the host from keyed uniforms: they must not differ in a last bit between backends.
"""

import numpy as np
from numpy.typing import ArrayLike

from gemma_keras.shapes import Array, Float


def preference_probability(
    first_scores: ArrayLike, second_scores: ArrayLike, scale: float | int = 1.0
) -> Float[Array, "n"]:
    """Probability that a Bradley-Terry rater prefers the first of two responses: `sigmoid((first - second) / scale)`.

    Args:
        first_scores, second_scores: float (n,). Scores of the two responses.
        scale: float >= 0. Noise: 0 is a rater without noise (probability 0, 1/2 or 1), larger is noisier.

    Returns:
        float64 (n,) in [0, 1].

    Source: Bradley and Terry 1952.
    """
    difference = np.asarray(first_scores, np.float64) - np.asarray(second_scores, np.float64)
    if scale < 0:
        raise ValueError(f"The noise scale of a rater must be >= 0. Received: scale={scale}")
    if scale == 0:
        return (np.sign(difference) + 1) / 2
    # The two branches keep exp from overflowing at either end.
    decay = np.exp(-np.abs(difference) / scale)
    return np.where(difference >= 0, 1 / (1 + decay), decay / (1 + decay))


def accuracy_ceiling(probabilities: ArrayLike) -> float:
    """Expected accuracy of the best possible judge: the mean of `max(p, 1 - p)` over labelled pairs.

    Args:
        probabilities: float (n,), n >= 1. Labelling model's probability that the chosen response wins.

    Returns:
        float in [0.5, 1].
    """
    p = np.asarray(probabilities, np.float64)
    return float(np.mean(np.maximum(p, 1 - p)))


def regrets(probabilities: ArrayLike, margins: ArrayLike) -> Float[Array, "n"]:
    """What a judge gives away on each pair: the probability that the likelier response wins, less that of the one it
    prefers. Unlike accuracy it holds no noise of the labels.

    Args:
        probabilities: float (n,). Labelling model's probability that the chosen response wins.
        margins: float (n,). The judge's score of the chosen response minus that of the rejected one; at 0 it prefers
            neither, and gets the mean of both.

    Returns:
        float64 (n,) in [0, 1]; the mean is the ceiling minus the accuracy that the judge can expect on new labels.
    """
    p = np.asarray(probabilities, np.float64)
    prefers_chosen = (np.sign(np.asarray(margins, np.float64)) + 1) / 2
    return np.maximum(p, 1 - p) - (prefers_chosen * p + (1 - prefers_chosen) * (1 - p))
