"""What becomes of rewards before anything learns from them, and how the weight of a KL is steered. Numpy, float64.

Shape letters: n responses, t response positions.
"""

import numpy as np

from gemma_keras.shapes import Array, Float
from pipelines.algorithms.value_learning import whitened

MOST_ERROR, GAIN = 0.2, 0.1
"""Of `steered_weight`: how far off the KL is taken to be, at most, and what share of that the weight moves by."""


def shaped_rewards(rewards: np.ndarray, clip: float | None = None, whiten: bool = False) -> Float[Array, "n"]:
    """Rewards cut to a magnitude, then scaled over the rollout.

    Args:
        rewards: float (n,), of all responses of a rollout.
        clip: largest magnitude, or None. whiten: shift and scale to mean 0 and standard deviation 1.

    Returns:
        float64 (n,); all 0 where whitened rewards are equal.

    Source: whitening Ziegler et al. 2019, arXiv:1909.08593, section 2.2.
    """
    found = np.asarray(rewards, np.float64)
    if clip is not None:
        found = np.clip(found, -clip, clip)
    return whitened(found, np.ones(found.shape, bool)) if whiten else found


def surprise(log_probs: np.ndarray, response_mask: np.ndarray) -> Float[Array, "n"]:
    """How unlikely each response was, -log pi(response): added to the reward, with no gradient through it, it gives
    exactly the gradient of the entropy of whole responses, as the KL to a uniform reference would.

    Args:
        log_probs: float (n, t), under the policy that sampled. response_mask: bool (n, t).

    Returns:
        float64 (n,), in nats.
    """
    return -np.where(response_mask, log_probs, 0.0).sum(axis=1, dtype=np.float64)


def kl_before(log_probs: np.ndarray, reference_log_probs: np.ndarray, response_mask: np.ndarray) -> Float[Array, "n t"]:
    """The part of a response's KL that lies before each place: what no token from there on can change.

    Args:
        log_probs, reference_log_probs: float (n, t). response_mask: bool (n, t), True where a token was sampled.

    Returns:
        float64 (n, t), in nats: sums of log-ratios; behind the end of a response all of it.
    """
    ratios = np.where(response_mask, np.asarray(log_probs, np.float64) - reference_log_probs, 0.0)
    return np.cumsum(ratios, axis=1) - ratios


def steered_weight(weight: float, kl: float, target: float) -> float:
    """The weight of the KL for the next step: a little more where the policy is farther away than it should be, a
    little less where it is nearer.

    Args:
        weight: of this step, > 0. kl: its `kl_sequence`, nats a response. target: where that is to be, > 0.

    Returns:
        float > 0, at most 2 % away from `weight`.

    Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2, with their constants.
    """
    error = float(np.clip(kl / target - 1, -MOST_ERROR, MOST_ERROR))
    return weight * (1 + GAIN * error)
