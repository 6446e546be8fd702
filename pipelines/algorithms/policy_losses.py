"""Policy-gradient losses on whole responses.

Shape letters: b responses, t response positions. Log-probabilities are at the sampling temperature.
`response_count` makes micro-batches add up: pass the number of responses of the whole batch, and the losses and
gradients of its parts sum to those of the whole.
"""

from keras import ops

from gemma_keras.shapes import Array, Bool, Float, Scalar
from pipelines.algorithms.importance import with_weighted_gradients


def reinforce_loss(
    log_probs: Float[Array, "b t"],
    advantages: Float[Array, "b"],
    response_mask: Bool[Array, "b t"],
    response_count: Scalar | None = None,
    importance_weights: Float[Array, "b t"] | None = None,
) -> Float[Array, ""]:
    """`-mean(advantage * log pi(response))`: its gradient is the policy gradient, its value means nothing.

    Args:
        log_probs: float (b, t). Under the policy now.
        advantages: float (b,). One a response, constant to the gradient.
        response_mask: bool (b, t). True where the policy sampled the token.
        response_count: float or None. Responses in the whole batch, default b.
        importance_weights: float (b, t) or None. Factor of each token's term, constant to the gradient; see
            `importance.truncated_importance_weights`.

    Returns:
        float ().

    Source: Williams 1992; with a KL in the reward, arXiv:2403.08295, section "Reinforcement learning from human
    feedback".
    """
    weights = reinforce_weights(advantages, response_mask, importance_weights)
    # `where` and not a product: a position behind the stop token may hold anything, infinity included.
    terms = ops.sum(ops.where(response_mask, log_probs, 0) * weights, axis=-1)
    return -ops.sum(terms) / _count(terms, response_count)


def reinforce_weights(
    advantages: Float[Array, "b"] | Float[Array, "b t"],
    response_mask: Bool[Array, "b t"],
    importance_weights: Float[Array, "b t"] | None = None,
) -> Float[Array, "b t"]:
    """What each token's log-probability counts for in `reinforce_loss` of one response, which is minus their sum.

    Args:
        advantages: float (b,), or (b, t) where each token has its own. response_mask: bool (b, t). importance_weights:
            float (b, t) or None.

    Returns:
        float (b, t), 0 where nothing was sampled; constant to the gradient.
    """
    weights = _constant(advantages)
    weights = weights if len(weights.shape) == 2 else weights[:, None]
    if importance_weights is not None:
        weights = weights * _constant(importance_weights)
    return ops.where(response_mask, weights, 0)


def clipped_sequence_loss(
    log_probs: Float[Array, "b t"],
    old_log_probs: Float[Array, "b t"],
    advantages: Float[Array, "b"],
    response_mask: Bool[Array, "b t"],
    clip_range: float,
    response_count: Scalar | None = None,
    importance_weights: Float[Array, "b t"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "b"], Bool[Array, "b"]]:
    """Clipped surrogate with one ratio for a whole response: for several updates on the same samples.

    Args:
        log_probs: float (b, t). Under the policy now.
        old_log_probs: float (b, t). Under the policy that sampled.
        advantages: float (b,). One a response, constant to the gradient.
        response_mask: bool (b, t). True where the policy sampled the token.
        clip_range: float > 0. The ratio is trusted in [1 - clip_range, 1 + clip_range].
        response_count: float or None. Responses in the whole batch, default b.
        importance_weights: float (b, t) or None. Factor of each token's part of the gradient; the values returned are
            those without it.

    Returns:
        loss: float (). ratio: float (b,), exactly 1 where the policy is the one that sampled.
        is_clipped: bool (b,), True where the clip takes the gradient away.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7, with the ratio of sequences of Ahmadian et al. 2024,
    arXiv:2402.14740.
    """
    log_ratio = ops.where(response_mask, log_probs - _constant(old_log_probs), 0)
    if importance_weights is not None:
        log_ratio = with_weighted_gradients(log_ratio, importance_weights)
    ratio = ops.exp(ops.sum(log_ratio, axis=-1))
    advantages = _constant(advantages)
    trusted = ops.clip(ratio, 1 - clip_range, 1 + clip_range)
    gains = ops.minimum(ratio * advantages, trusted * advantages)
    is_clipped = ops.logical_or(
        ops.logical_and(ratio < 1 - clip_range, advantages < 0), ops.logical_and(ratio > 1 + clip_range, advantages > 0)
    )
    return -ops.sum(gains) / _count(gains, response_count), ratio, is_clipped


def _constant(array: Array) -> Array:
    return ops.stop_gradient(ops.convert_to_tensor(array))


def _count(terms: Float[Array, "b"], response_count: Scalar | None) -> Scalar:
    return terms.shape[0] if response_count is None else ops.cast(response_count, terms.dtype)
