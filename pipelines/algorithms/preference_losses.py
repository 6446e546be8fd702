"""Losses of pairs of answers, of which one is preferred, without a reward model.

Shape letters: n pairs. A log-ratio is log pi(answer) - log pi_ref(answer), summed over the answer's tokens; a mean one
is that divided by their number. Every function gives a loss a pair, (n,); the log-probabilities of the reference are
constants of the data.
"""

import math

from keras import ops

from gemma_keras.shapes import Array, Float, Scalar

_NEAREST_TO_ONE = -1e-6  # logarithm of the likeliest mean probability that odds are made of


def logistic_loss(logits: Float[Array, "n"], label_smoothing: float = 0.0) -> Float[Array, "n"]:
    """`-(1 - e) log sigmoid(x) - e log sigmoid(-x)`: the cross entropy of a label that is wrong with probability e.

    Args:
        logits: float (n,). How much the policy prefers the chosen answer: DPO's beta times the log-ratio of the chosen
            answer minus that of the rejected one, and what other losses put in its place.
        label_smoothing: e, float in [0, 0.5).

    Returns:
        float (n,). Over many raters of one pair it is least where sigmoid(x) = (1 - e) p + e (1 - p), p being the share
        that preferred the chosen answer.

    Source: Rafailov et al. 2023, arXiv:2305.18290, equation 7; the smoothing: Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO", equation 3.
    """
    losses = ops.softplus(-logits)
    # log sigmoid(-x) = log sigmoid(x) - x
    return losses if label_smoothing == 0 else losses + label_smoothing * logits


def robust_loss(logits: Float[Array, "n"], label_noise: float) -> Float[Array, "n"]:
    """`(-(1 - e) log sigmoid(x) + e log sigmoid(-x)) / (1 - 2 e)`: in expectation over labels that were flipped with
    probability e the logistic loss of the true ones.

    Args:
        logits: float (n,), as of `logistic_loss`. label_noise: e, float in [0, 0.5).

    Returns:
        float (n,); single ones may be negative.

    Source: Chowdhury et al. 2024, arXiv:2403.00409, equation 12.
    """
    kept, flipped = ops.softplus(-logits), ops.softplus(logits)
    return ((1 - label_noise) * kept - label_noise * flipped) / (1 - 2 * label_noise)


def squared_loss(margins: Float[Array, "n"], beta: float) -> Float[Array, "n"]:
    """`(margin - 1 / (2 beta)) ** 2`, which stops pushing a pair apart once its margin is reached.

    Args:
        margins: float (n,). Mean log-ratio of the chosen answer minus that of the rejected one. beta: float > 0.

    Returns:
        float (n,). Over many raters of one pair it is least at a margin of (2 p - 1) / (2 beta).

    Source: Azar et al. 2023, arXiv:2310.12036, equation 17, where beta is tau and log-ratios are sums: of means they do
    not ask more of longer answers.
    """
    return ops.square(margins - 1 / (2 * beta))


def odds_ratio_loss(chosen: Float[Array, "n"], rejected: Float[Array, "n"]) -> Float[Array, "n"]:
    """`-log sigmoid(log(odds of chosen / odds of rejected))`, odds being p / (1 - p).

    Args:
        chosen, rejected: float (n,), < 0. Mean log-probability of a token of each answer, under the policy alone; p is
            its exponential.

    Source: Hong et al. 2024, arXiv:2403.07691, equations 4 and 7.
    """
    return ops.softplus(_log_odds(rejected) - _log_odds(chosen))


def _log_odds(log_probs: Float[Array, "n"]) -> Float[Array, "n"]:
    """log p - log(1 - p)."""
    log_probs = ops.minimum(log_probs, _NEAREST_TO_ONE)
    is_near_one = log_probs > -math.log(2)
    # Each branch gets numbers that it can take, as the gradient of the one that is not taken must be finite too.
    near, far = ops.where(is_near_one, log_probs, -1.0), ops.where(is_near_one, -1.0, log_probs)
    return log_probs - ops.where(is_near_one, ops.log(-ops.expm1(near)), ops.log1p(-ops.exp(far)))


def prospect_loss(
    chosen: Float[Array, "n"],
    rejected: Float[Array, "n"],
    kl: Scalar,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Array, "n"]:
    """Mean of `w_d (1 - sigmoid(beta (chosen - kl)))` and `w_u (1 - sigmoid(beta (kl - rejected)))`: each answer for
    itself, measured from where the policy stands on the whole.

    Args:
        chosen, rejected: float (n,). Log-ratios of wanted and unwanted answers.
        kl: float () >= 0, a constant: an estimate of KL(policy || reference), see `prospect_reference`.
        beta: float > 0. desirable_weight, undesirable_weight: w_d and w_u, float >= 0.

    Returns:
        float (n,).

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, equation 8, without its constant.
    """
    kl = ops.stop_gradient(ops.cast(ops.convert_to_tensor(kl), chosen.dtype))
    wanted, unwanted = ops.sigmoid(-beta * (chosen - kl)), ops.sigmoid(beta * (rejected - kl))
    return (desirable_weight * wanted + undesirable_weight * unwanted) / 2


def prospect_reference(log_ratios: Float[Array, "n"]) -> Scalar:
    """What `prospect_loss` measures from: the mean log-ratio of answers to other prompts than their own, at least 0.

    Args:
        log_ratios: float (n,). Of prompts with an answer that belongs to another one.

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1.
    """
    return ops.maximum(ops.mean(log_ratios), 0.0)
