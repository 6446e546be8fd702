"""Estimators of KL(policy || reference) from sampled tokens, and the exact sum over the vocabulary.

`log_ratio` is log pi(token) - log pi_ref(token) for tokens that the policy sampled. What an estimator is good for
depends on where it is used; all of it is checked by full enumeration in the tests:

1. `k1` in the **reward**, summed over the sequence, gives exactly the gradient of KL(pi || pi_ref) at any length. This
   is what policy optimization uses. `k1` in the **loss** has expected gradient zero.
2. `k2` in the loss gives that gradient for one token, and is biased for sequences.
3. `k3` in the loss gives the gradient of the forward KL, KL(pi_ref || pi). As a value it is unbiased and never
   negative.

Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html).
"""

from keras import ops

from gemma_keras.shapes import Array, Bool, Float

TINY = 1.2e-38  # the smallest float32 of full precision


def k1(log_ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`log_ratio` itself: unbiased, of either sign. Any shape to the same shape."""
    return log_ratio


def k2(log_ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`log_ratio ** 2 / 2`: biased, never negative. Any shape to the same shape."""
    return ops.square(log_ratio) / 2


def k3(log_ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`exp(-log_ratio) - 1 + log_ratio`: unbiased, never negative. Any shape to the same shape."""
    return ops.expm1(-log_ratio) + log_ratio


def sequence_kl(
    log_probs: Float[Array, "b t"], reference_log_probs: Float[Array, "b t"], response_mask: Bool[Array, "b t"]
) -> Float[Array, "b"]:
    """Sum of `k1` over each response: what the reward is charged with, and the metric `kl_sequence` before its mean.

    Args:
        log_probs: float (b, t). Of the sampled tokens under the policy, at the sampling temperature.
        reference_log_probs: float (b, t). The same under the reference.
        response_mask: bool (b, t). True where the policy sampled the token.

    Returns:
        float (b,), in nats.
    """
    return ops.sum(ops.where(response_mask, k1(log_probs - reference_log_probs), 0), axis=-1)


def exact_token_kl(
    log_probs: Float[Array, "*shape v"], reference_log_probs: Float[Array, "*shape v"]
) -> Float[Array, "*shape"]:
    """KL(policy || reference) of each next-token distribution, summed over the whole vocabulary.

    As `sum p k3(log p - log q)`, which is `sum p (log p - log q)` where both sum to 1. No term is below 0, and near
    policies lose nothing: in the plain sum an error of 5e-7 in a float32 normaliser is one of 5e-7 nats.

    Args:
        log_probs: float (..., v). Normalised log-probabilities of the policy.
        reference_log_probs: float (..., v). Of the reference.

    Returns:
        float (...), in nats, never negative.
    """
    probs = ops.exp(log_probs)
    # The limit for a token that the policy cannot produce, where 0 * inf would be NaN.
    terms = ops.where(probs > TINY, probs * k3(log_probs - reference_log_probs), ops.exp(reference_log_probs))
    return ops.sum(terms, axis=-1)
