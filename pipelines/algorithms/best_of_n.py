"""Best of n: sample n responses, keep the one that a reward likes best. The control that any training has to beat."""

import math

import numpy as np
from numpy.typing import ArrayLike

from gemma_keras.shapes import Array, Float


def expected_best(rewards: ArrayLike, values: ArrayLike, size: int) -> Float[Array, "p"]:
    """What the response with the highest of `size` rewards is worth, on average over all subsets of the samples.

    With k samples in rising order of reward, the i-th of them (from 1) is the best of `C(i - 1, size - 1)` of the
    `C(k, size)` subsets. So one draw of k samples gives the whole curve up to k, without the noise of a second one.

    Args:
        rewards: float (p, k). What chooses. values: float (p, k). What is measured, the rewards themselves or others.
        size: int in [1, k].

    Returns:
        float64 (p,). Of equal rewards the later sample counts as the better.

    Raises:
        ValueError: a size outside of [1, k].

    Source: Nakano et al. 2021 (WebGPT), arXiv:2112.09332, appendix I.
    """
    rewards, values = np.asarray(rewards, np.float64), np.asarray(values, np.float64)
    k = rewards.shape[1]
    if not 1 <= size <= k:
        raise ValueError(f"`size` must be from 1 to {k}, the samples a prompt. Received: {size}")
    shares = np.array([math.comb(i, size - 1) for i in range(k)], np.float64) / math.comb(k, size)
    order = np.argsort(rewards, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1) @ shares


def best_of_n_kl(n: int) -> float:
    """Upper bound of KL(best of n || sampled policy) in nats a response: `log n - (n - 1) / n`.

    It is reached where no two responses have the same reward and none has much probability.

    Source: Stiennon et al. 2020, arXiv:2009.01325, appendix G.3; that it is a bound: Beirami et al. 2024,
    arXiv:2401.01879, theorem 1.
    """
    return math.log(n) - (n - 1) / n
