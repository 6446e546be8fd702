"""Policy-gradient losses of single tokens, and how they add up to that of a batch: what GRPO and its variants share.

Shape letters: b responses, t response positions. Log-probabilities are at the sampling temperature. Advantages are
(b, 1), one a response, or (b, t), one a token.

    tokens      sum over tokens / tokens of the batch                              DAPO, arXiv:2503.14476, equation 8
    responses   mean over the tokens of each response, then over responses         GRPO, arXiv:2402.03300, equation 3
    constant    sum over tokens / (responses * most tokens of a response)          Dr. GRPO, arXiv:2503.20783, section 3

By `responses` a token of a long response counts for less, by `constant` all tokens count for one, whatever lengths a
batch has; by `tokens` all tokens of one batch. `count` makes micro-batches add up: pass the number of `units` of the
whole batch, and the losses and gradients of its parts sum to those of the whole.
"""

from typing import Literal

from keras import backend, ops

from gemma_keras.shapes import Array, Bool, Float, Scalar
from pipelines.algorithms.kl import k3

Aggregation = Literal["tokens", "responses", "constant"]
RatioOf = Literal["token", "sequence"]


def clipped_token_losses(
    log_probs: Float[Array, "b t"],
    old_log_probs: Float[Array, "b t"],
    advantages: Float[Array, "b #t"],
    response_mask: Bool[Array, "b t"],
    clip_range: float,
    clip_range_high: float | None = None,
    ratio_of: RatioOf = "token",
) -> tuple[Float[Array, "b t"], Bool[Array, "b t"], Bool[Array, "b t"]]:
    """Clipped surrogate of each token, `-min(ratio * A, clip(ratio) * A)`.

    Args:
        log_probs: float (b, t). Under the policy now.
        old_log_probs: float (b, t). Under the policy that sampled.
        advantages: float (b, 1) or (b, t), constant to the gradient.
        response_mask: bool (b, t). True where the policy sampled the token, the stop token included.
        clip_range: float > 0. The ratio is trusted in [1 - clip_range, 1 + clip_range_high].
        clip_range_high: float > 0 or None, which is `clip_range`.
        ratio_of: `token`, the ratio of each token; `sequence`, at each token of a response the geometric mean of the
            ratios of all, exp(mean of log-ratios), through which the gradient reaches every token.

    Returns:
        losses: float (b, t), 0 where nothing was sampled. is_low, is_high: bool (b, t), True where the clip takes the
        gradient away, at its lower end (of a negative advantage) or its upper end (of a positive one).

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7; token by token Shao et al. 2024, arXiv:2402.03300,
    equation 3; with two ends Yu et al. 2025, arXiv:2503.14476, equation 10; of the sequence Zheng et al. 2025 (GSPO),
    arXiv:2507.18071, equations 5 and 7.
    """
    advantages = _constant(advantages)
    low, high = 1 - clip_range, 1 + (clip_range if clip_range_high is None else clip_range_high)
    log_ratio = ops.where(response_mask, log_probs - _constant(old_log_probs), 0)
    if ratio_of == "sequence":
        log_ratio = _mean_of_response(log_ratio, response_mask)
    ratio = ops.exp(log_ratio)
    is_low = ops.logical_and(response_mask, ops.logical_and(ratio < low, advantages < 0))
    is_high = ops.logical_and(response_mask, ops.logical_and(ratio > high, advantages > 0))
    # The smaller of two products is that with the clipped ratio just there.
    gains = advantages * ops.where(ops.logical_or(is_low, is_high), ops.clip(ratio, low, high), ratio)
    return ops.where(response_mask, -gains, 0), is_low, is_high


def kl_token_losses(
    log_probs: Float[Array, "b t"], reference_log_probs: Float[Array, "b t"], response_mask: Bool[Array, "b t"]
) -> Float[Array, "b t"]:
    """The estimator `k3` of each sampled token, as a loss.

    Its value estimates KL(policy || reference). Its expected gradient is another: that of the **forward** KL,
    KL(reference || policy), of each next-token distribution at the prefixes that were sampled (see `kl`).

    Args:
        log_probs: float (b, t). Under the policy now. reference_log_probs: float (b, t), constant to the gradient.
        response_mask: bool (b, t). True where the policy sampled the token.

    Returns:
        float (b, t), in nats, 0 where nothing was sampled.

    Source: Shao et al. 2024, arXiv:2402.03300, equation 4.
    """
    return k3(ops.where(response_mask, log_probs - _constant(reference_log_probs), 0))


def first_update_weights(
    advantages: Float[Array, "b #t"],
    response_mask: Bool[Array, "b t"],
    kl_weight: float = 0.0,
    kl_log_ratio: Float[Array, "b t"] | None = None,
) -> Float[Array, "b t"]:
    """Minus the derivative of `clipped_token_losses + kl_weight * kl_token_losses` by each token's log-probability
    where the policy is still the one that sampled, so that every ratio is 1 and nothing is clipped.

    There it is known before the log-probabilities are, which `GemmaCausalLM.weighted_score` makes use of. With one
    advantage a response, and one weight of its losses, as `aggregation_weights` gives them, it is the same whosever
    ratio is clipped: each token's share of a geometric mean is that of its own ratio in a mean of all.

    Args:
        advantages, response_mask: as of `clipped_token_losses`.
        kl_weight: float >= 0. kl_log_ratio: float (b, t), `old_log_probs - reference_log_probs`; None without a KL.

    Returns:
        float (b, t), 0 where nothing was sampled; constant to the gradient.
    """
    gains = _constant(advantages)
    if kl_log_ratio is not None:
        gains = gains + kl_weight * ops.expm1(-_constant(kl_log_ratio))
    return ops.where(response_mask, gains, 0)


def aggregation_weights(
    response_mask: Bool[Array, "b t"], aggregation: Aggregation, most_tokens: int, dtype: str = "float32"
) -> Float[Array, "b t"]:
    """What each token's loss counts for in the sum that `units` divides.

    Args:
        response_mask: bool (b, t). True where the policy sampled the token.
        most_tokens: int >= 1. Tokens that a response may have, `max_new_tokens`. dtype: of the result.

    Returns:
        float (b, t), 0 where nothing was sampled: 1, or 1 / tokens of the response, or 1 / most_tokens.
    """
    if aggregation == "responses":
        return _shares(response_mask, dtype)
    weights = ops.cast(response_mask, dtype)
    return weights / most_tokens if aggregation == "constant" else weights


def units(response_mask: Bool[Array, "b t"], aggregation: Aggregation) -> Scalar:
    """What the weighted sum of a batch's losses is divided by: its tokens, or its responses that have any."""
    counted = response_mask if aggregation == "tokens" else ops.any(response_mask, axis=-1)
    return ops.sum(ops.cast(counted, "float32"))


def aggregated_loss(
    losses: Float[Array, "b t"],
    response_mask: Bool[Array, "b t"],
    aggregation: Aggregation,
    most_tokens: int,
    count: Scalar | None = None,
) -> Float[Array, ""]:
    """Losses of tokens as the loss of a batch.

    Args:
        losses: float (b, t), finite. response_mask: bool (b, t). True where the policy sampled the token.
        aggregation, most_tokens: see `aggregation_weights`.
        count: float or None. The `units` of the whole batch where this is a part of it, default its own.

    Returns:
        float ().
    """
    weights = aggregation_weights(response_mask, aggregation, most_tokens, backend.standardize_dtype(losses.dtype))
    return ops.sum(losses * weights) / ops.cast(
        units(response_mask, aggregation) if count is None else count, losses.dtype
    )


def _mean_of_response(values: Float[Array, "b t"], response_mask: Bool[Array, "b t"]) -> Float[Array, "b t"]:
    """At each token the mean over the response's tokens."""
    shares = _shares(response_mask, backend.standardize_dtype(values.dtype))
    return ops.broadcast_to(ops.sum(values * shares, axis=-1, keepdims=True), values.shape)


def _shares(response_mask: Bool[Array, "b t"], dtype: str) -> Float[Array, "b t"]:
    """1 / tokens of the response at each of them."""
    is_token = ops.cast(response_mask, dtype)
    # A row that fills a shape up has 0/0, which nothing differentiates.
    return ops.where(response_mask, is_token / ops.sum(is_token, axis=-1, keepdims=True), 0)


def _constant(array: Array) -> Array:
    return ops.stop_gradient(ops.convert_to_tensor(array))
