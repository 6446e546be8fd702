"""Losses of the models: pure functions on `keras.ops`.

Each takes the divisor of the **whole** batch, so that the losses and gradients of micro-batches add up to those of the
batch: never a mean of means, never divided by padding.
"""

from keras import ops

from gemma_keras.shapes import Array, Bool, Float, Scalar


def next_token_loss(
    log_probs: Float[Array, "b t"], is_target: Bool[Array, "b t"], target_count: Scalar | None = None
) -> Float[Array, ""]:
    """Cross-entropy of the next token: sum over loss-bearing positions divided by their number.

    Args:
        log_probs: float (b, t). Log-probability of each target token.
        is_target: bool (b, t). True where the position bears loss.
        target_count: float () or None. Loss-bearing tokens of the whole batch; default those of this call. A batch
            without any gives 0, not 0/0.

    Returns:
        float (), in nats a token.
    """
    total = ops.sum(ops.where(is_target, log_probs, 0))
    return mean_loss(total, ops.sum(ops.cast(is_target, total.dtype)) if target_count is None else target_count)


def mean_loss(total: Float[Array, ""], count: Scalar) -> Float[Array, ""]:
    """Minus a sum of log-probabilities, divided by how many they are, or by the sum of their weights.

    Args:
        total: float (). count: float (); 0 gives -total, which is 0 where nothing was summed.

    Returns:
        float (), in nats a token.
    """
    count = ops.cast(count, total.dtype)
    return -total / ops.where(count > 0, count, 1)


def bradley_terry_loss(
    chosen_scores: Float[Array, "b"],
    rejected_scores: Float[Array, "b"],
    margin: Float[Array, "b"] | None = None,
    center_coefficient: float = 0.0,
    pair_count: Scalar | None = None,
    is_pair: Bool[Array, "b"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """`-(1 - e) * log sigmoid(m) - e * log sigmoid(-m) + c * (chosen + rejected)^2` with
    `m = chosen - rejected - margin`, averaged over pairs.

    Args:
        chosen_scores: float (b,). Raw score of the preferred response.
        rejected_scores: float (b,). Raw score of the other one.
        margin: float (b,) or None. How much better the rater said it was.
        center_coefficient: float >= 0, c. Keeps scores near 0, which the loss itself leaves free.
        pair_count: float () or None. Pairs of the whole batch, default b.
        is_pair: bool (b,) or None. False where the row only fills a fixed shape up; it bears no loss and no gradient.
        label_smoothing: float in [0, 0.5), e. How likely a preference is taken to be the wrong way round; above 0 the
            loss is least at m = log((1 - e) / e) in place of infinity.

    Returns:
        float ().

    Source: Ouyang et al. 2022, arXiv:2203.02155, equation 1; margin: Touvron et al. 2023, arXiv:2307.09288, equation 2;
    centring: Eisenstein et al. 2023, arXiv:2312.09244; smoothing: Mitchell 2023, "A note on DPO with noisy preferences
    & relationship to IPO", there of DPO's logits.
    """
    difference = chosen_scores - rejected_scores
    if margin is not None:
        difference = difference - margin
    losses = ops.softplus(-difference)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * ops.softplus(difference)
    if center_coefficient:
        losses = losses + center_coefficient * ops.square(chosen_scores + rejected_scores)
    if is_pair is not None:
        losses = ops.where(is_pair, losses, 0)
    total = ops.sum(losses)
    return total / ops.cast(chosen_scores.shape[0] if pair_count is None else pair_count, total.dtype)
