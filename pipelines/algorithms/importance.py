"""Learning from samples of another distribution: importance weights between the sampler and the policy that learns.

Rounded weights, or another order of the same sums in half precision, make the sampler q differ from the policy p it
was copied from. The expectation under q of `(p / q) * f` is that under p of f:

1. `sequence`, the ratio of whole responses, makes the policy gradient that of p at any length; over a long response its
   variance grows with the product of all ratios.
2. `token`, the ratio of each token, leaves the prefixes and what follows as q draws them: less variance, and a bias
   that goes to zero as q comes near p.

Truncation bounds the variance, for a bias towards the samples that q draws too rarely.

Source: Ionides 2008, "Truncated importance sampling"; Espeholt et al. 2018, arXiv:1802.01561, section 4.1 (IMPALA);
between sampler and learner of one language model Yao et al. 2025, "On the rollout-training mismatch in modern RL
systems" (openreview.net/forum?id=8MHqvb4lK9).
"""

from typing import Literal

from keras import ops

from gemma_keras.shapes import Array, Bool, Float


def truncated_importance_weights(
    log_probs: Float[Array, "b t"],
    sampler_log_probs: Float[Array, "b t"],
    response_mask: Bool[Array, "b t"],
    most: float,
    level: Literal["token", "sequence"],
) -> tuple[Float[Array, "b t"], Bool[Array, "b t"]]:
    """`min(p / q, most)` of each token, or of the whole response at each of its tokens.

    Args:
        log_probs: float (b, t). Of the sampled tokens under the policy before it learns from them, p.
        sampler_log_probs: float (b, t). Under what drew them, q, at the same temperature.
        response_mask: bool (b, t). True where a token was sampled.
        most: float >= 1. The largest weight.
        level: whose ratio.

    Returns:
        weights: float (b, t), 0 where nothing was sampled. is_truncated: bool (b, t), True where the ratio was above
        `most`.
    """
    log_ratio = ops.where(response_mask, ops.subtract(log_probs, sampler_log_probs), 0)
    if level == "sequence":
        log_ratio = ops.broadcast_to(ops.sum(log_ratio, axis=-1, keepdims=True), log_ratio.shape)
    ratio = ops.exp(log_ratio)
    is_truncated = ops.logical_and(response_mask, ratio > most)
    return ops.where(response_mask, ops.clip(ratio, 0, most), 0), is_truncated


def with_weighted_gradients(
    log_probs: Float[Array, "b t"], importance_weights: Float[Array, "b t"]
) -> Float[Array, "b t"]:
    """The same numbers, whose gradients are multiplied by the weights: whatever loss is made of them, each token's part
    of its gradient counts for so much.

    Args:
        log_probs: float (b, t), finite. importance_weights: float (b, t), constant to the gradient.
    """
    constant = ops.stop_gradient(ops.convert_to_tensor(log_probs))
    return constant + ops.stop_gradient(ops.convert_to_tensor(importance_weights)) * (log_probs - constant)
