"""Advantages: how much better a response was than a baseline that does not depend on it.

Shape letters: p prompts, k responses a prompt.

Departures from the papers:
1. Rewards are first taken relative to the first response of their group. The results are the same numbers, since every
   baseline here moves with the rewards, and a group of equal rewards then gives advantages of exactly 0 in floating
   point.
"""

from keras import ops

from gemma_keras.shapes import Array, Float, Scalar

LEAST_DEVIATION = 1e-4
"""Added to a group's standard deviation: rewards that differ by rounding alone do not become advantages of 1."""


def leave_one_out(rewards: Float[Array, "p k"]) -> Float[Array, "p k"]:
    """Reward minus the mean reward of the **other** responses to the same prompt. Unbiased.

    Args:
        rewards: float (p, k), k >= 2. One reward a response; a constant added to a row changes nothing.

    Returns:
        float (p, k). Exactly 0 where all rewards of a row are equal.

    Raises:
        ValueError: with fewer than two responses a prompt there is no other response.

    Source: Kool et al. 2019 ("Buy 4 REINFORCE samples, get a baseline for free"); Ahmadian et al. 2024,
    arXiv:2402.14740.
    """
    relative, k = _relative_to_first(rewards)
    others = (ops.sum(relative, axis=1, keepdims=True) - relative) / (k - 1)
    return relative - others


def group_mean(rewards: Float[Array, "p k"]) -> Float[Array, "p k"]:
    """Reward minus the mean of its whole group. Its expected gradient is (k - 1) / k of the true one.

    Args:
        rewards: float (p, k), k >= 2.

    Returns:
        float (p, k). Exactly 0 where all rewards of a row are equal.

    Raises:
        ValueError: fewer than two responses a prompt.

    Source: Shao et al. 2024, arXiv:2402.03300, equation 3 without its division by the standard deviation.
    """
    relative, k = _relative_to_first(rewards)
    return relative - ops.sum(relative, axis=1, keepdims=True) / k


def group_normalized(rewards: Float[Array, "p k"]) -> Float[Array, "p k"]:
    """Reward minus the mean of its group, over the standard deviation of its group: `(r - mean) / (std + 1e-4)`.

    Args:
        rewards: float (p, k), k >= 2. A constant added to a row changes nothing, nor, but for the 1e-4, does a factor.

    Returns:
        float (p, k). The standard deviation is the sample's, with k - 1 below the sum of squares, as in TRL. Exactly 0
        where all rewards of a row are equal.

    Raises:
        ValueError: fewer than two responses a prompt.

    Source: Shao et al. 2024, arXiv:2402.03300, section 4.1.2; the 1e-4 is TRL's.
    """
    centered = group_mean(rewards)
    variance = ops.sum(ops.square(centered), axis=1, keepdims=True) / (centered.shape[1] - 1)
    return centered / (ops.sqrt(variance) + LEAST_DEVIATION)


def moving_average(
    rewards: Float[Array, "p k"], baseline: Scalar, decay: float = 0.9
) -> tuple[Float[Array, "p k"], Scalar]:
    """Reward minus an exponential moving average of earlier batches' rewards.

    The average is taken **before** this batch enters it, so that the baseline does not depend on the responses it
    judges and the gradient stays unbiased.

    Args:
        rewards: float (p, k).
        baseline: float (). Average so far.
        decay: float in [0, 1). Share of the old average kept.

    Returns:
        advantages: float (p, k). next_baseline: float (), for the next batch.

    Source: Williams 1992 (REINFORCE with a reinforcement baseline).
    """
    advantages = rewards - baseline
    next_baseline = decay * baseline + (1 - decay) * ops.mean(rewards)
    return advantages, next_baseline


def _relative_to_first(rewards: Float[Array, "p k"]) -> tuple[Float[Array, "p k"], int]:
    if len(rewards.shape) != 2 or rewards.shape[1] < 2:
        raise ValueError(
            "A baseline from the group needs rewards of shape (prompts, samples) with at least 2 samples a prompt. "
            f"Received: shape {tuple(rewards.shape)}."
        )
    return rewards - rewards[:, :1], rewards.shape[1]
