"""Several rewards of one response as one: a policy that exploits the errors of one reward model meets others that do
not share them."""

import numpy as np
from numpy.typing import ArrayLike

from gemma_keras.shapes import Array, Float


def combined(scores: ArrayLike, combine: str, uncertainty_weight: float = 0.0) -> Float[Array, "n"]:
    """The reward of each response.

        mean:         mean_k r_k
        minimum:      min_k r_k
        uncertainty:  mean_k r_k - w * mean_k (r_k - mean_k r_k)^2

    Args:
        scores: float (k, n). What each of k members gives each of n responses, in a unit that they share.
        combine: "mean", "minimum" or "uncertainty".
        uncertainty_weight: w >= 0, of the last of them only; in 1 / the unit of the scores.

    Returns:
        float64 (n,).

    Source: Coste et al. 2023, arXiv:2310.02743, section 3: mean, worst-case and uncertainty-weighted optimization. The
    uncertainty is theirs: the variance over the members, with the divisor k, not the standard deviation.
    """
    scores = np.asarray(scores, np.float64)
    if combine == "minimum":
        return scores.min(axis=0)
    mean = scores.mean(axis=0)
    return mean - uncertainty_weight * scores.var(axis=0) if combine == "uncertainty" else mean


def disagreement(scores: ArrayLike) -> Float[Array, "n"]:
    """How far the members lie apart on each response: the standard deviation over them, with the divisor k.

    Args:
        scores: float (k, n), as of `combined`.

    Returns:
        float64 (n,), in the unit of the scores.
    """
    return np.asarray(scores, np.float64).std(axis=0)
