"""Values of the places in a response, and advantages by them: what PPO adds to a policy gradient.

Shape letters: n, b responses, t response positions, filled from the first one on. The value of a place is what is
expected to be earned from it on, before its token is drawn. Advantages are float64 in numpy: they are made once a
rollout on the host, and are to be the same on every backend.
"""

import numpy as np
from keras import ops

from gemma_keras.shapes import Array, Bool, Float

LEAST_DEVIATION = 1e-8
"""Added to the deviation by which advantages or rewards are divided."""


def token_rewards(rewards: np.ndarray, charges: np.ndarray, response_mask: np.ndarray) -> Float[Array, "n t"]:
    """What each token earns: its charge is subtracted from it, and the last one earns the response's reward.

    Args:
        rewards: float (n,). charges: float (n, t), such as the KL of each token times its weight.
        response_mask: bool (n, t), at least one True a row.

    Returns:
        float64 (n, t), 0 where nothing was sampled.
    """
    earned = np.where(response_mask, -charges, 0.0).astype(np.float64)
    earned[np.arange(len(earned)), response_mask.sum(axis=1) - 1] += rewards
    return earned


def generalized_advantages(
    earned: np.ndarray, values: np.ndarray, response_mask: np.ndarray, discount: float = 1.0, trace: float = 0.95
) -> Float[Array, "n t"]:
    """A_t = d_t + discount * trace * A_t+1, with d_t = r_t + discount * V_t+1 - V_t; behind the last token both are 0.

    Args:
        earned: float (n, t), of each token. values: float (n, t), of the place before each token.
        response_mask: bool (n, t).
        discount: float in (0, 1]. trace: lambda, float in [0, 1]: at 1 the sum of what is earned minus the value, with
            no bias and most noise; at 0 one step of it.

    Returns:
        float64 (n, t), 0 where nothing was sampled.

    Source: Schulman et al. 2015, arXiv:1506.02438, equation 16.
    """
    earned, values = (np.where(response_mask, array, 0.0).astype(np.float64) for array in (earned, values))
    found = np.zeros_like(earned)
    following = np.zeros(len(earned))
    next_value = np.zeros(len(earned))
    for place in range(earned.shape[1] - 1, -1, -1):
        difference = earned[:, place] + discount * next_value - values[:, place]
        following = np.where(response_mask[:, place], difference + discount * trace * following, 0.0)
        next_value = values[:, place]
        found[:, place] = following
    return found


def whitened(values: np.ndarray, is_value: np.ndarray) -> Float[Array, "*shape"]:
    """Shifted and scaled to mean 0 and standard deviation 1 over a rollout: advantages of its tokens, or rewards.

    Args:
        values: float, any shape. is_value: bool of that shape, False for what does not count, such as padding.

    Returns:
        float64 of that shape, 0 where nothing counts; 0 everywhere if all that count are equal.
    """
    taken = values[is_value]
    return np.where(is_value, (values - taken.mean()) / (taken.std() + LEAST_DEVIATION), 0.0)


def clipped_value_losses(
    values: Float[Array, "b t"],
    old_values: Float[Array, "b t"],
    returns: Float[Array, "b t"],
    response_mask: Bool[Array, "b t"],
    clip_range: float | None,
) -> tuple[Float[Array, "b t"], Bool[Array, "b t"]]:
    """Half of the squared error of each value, or of the value held within `clip_range` of what it was, whichever is
    larger: a value that has moved so far does not move farther in the same step.

    Args:
        values: float (b, t), now. old_values: float (b, t), when the rollout was scored. returns: float (b, t), what
            they should be. The latter two are constant to the gradient.
        response_mask: bool (b, t).
        clip_range: float > 0, or None without a clip.

    Returns:
        losses: float (b, t), 0 where nothing was sampled. is_clipped: bool (b, t), True where the clip takes the
        gradient away.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 9; the clip: their implementation in OpenAI Baselines.
    """
    old_values, returns = (ops.stop_gradient(ops.convert_to_tensor(array)) for array in (old_values, returns))
    error = ops.square(values - returns)
    if clip_range is None:
        return ops.where(response_mask, error / 2, 0), ops.zeros_like(response_mask)
    held = old_values + ops.clip(values - old_values, -clip_range, clip_range)
    held_error = ops.square(held - returns)
    is_clipped = ops.logical_and(response_mask, held_error > error)
    return ops.where(response_mask, ops.maximum(error, held_error) / 2, 0), is_clipped


def explained_variance(values: np.ndarray, returns: np.ndarray, response_mask: np.ndarray) -> float:
    """1 - Var(return - value) / Var(return) over all tokens: 1 where values foresee everything, 0 where they say no
    more than a constant, below 0 where they say less. 0 where the returns do not vary.

    Args:
        values, returns: float (n, t). response_mask: bool (n, t).
    """
    wanted, missed = returns[response_mask], (returns - values)[response_mask]
    variance = float(np.var(wanted, dtype=np.float64))
    return 1 - float(np.var(missed, dtype=np.float64)) / variance if variance > 0 else 0.0
