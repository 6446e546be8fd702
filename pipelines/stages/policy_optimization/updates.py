"""One update of policy optimization: rewards to advantages, advantages to micro-batches, and the figures of both."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops

from gemma_keras.backends import to_host
from pipelines.algorithms.importance import truncated_importance_weights
from pipelines.algorithms.kl import k1, k3
from pipelines.algorithms.policy_losses import clipped_sequence_loss, reinforce_weights
from pipelines.measures.diversity import distinct_ngrams, equal_pairs
from pipelines.sampling.parts import Arrays, scoring_parts
from pipelines.sampling.rollout import Rollout
from pipelines.scoring.base import part_means
from pipelines.stages.policy_optimization.config import Correction
from pipelines.stages.policy_optimization.methods.base import LossFunction


def on_device(formula: Callable, rewards: np.ndarray, *arguments: Any) -> Any:
    """A formula of `pipelines/algorithms/` on float32 rewards (p, k), computed by the backend; its arrays back on the
    host."""
    found = formula(ops.convert_to_tensor(rewards.astype(np.float32)), *arguments)
    return tuple(map(to_host, found)) if isinstance(found, tuple) else to_host(found)


def policy_loss(temperature: float, clip_range: float | None) -> LossFunction:
    """The loss that `Trainer` takes, as a sum over responses.

    Args:
        temperature: float > 0, the sampling temperature.
        clip_range: half-width of the trusted ratio, or None for plain REINFORCE, whose gradient is the same at the
            first update.

    Returns:
        (model, batch) -> (loss (), aux). aux: `clip_ratio` (), responses whose gradient the clip took away; what
        `ratio_arrays` gives.
    """

    def loss_function(model: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask, advantages = batch["response_mask"], batch["advantages"]
        old, importance = batch["old_log_probs"], batch.get("importance_weights")
        if clip_range is None:
            # What each token's log-probability counts for is known before it: `reinforce_loss`, for less work.
            total, log_probs = model.weighted_score(batch, reinforce_weights(advantages, mask, importance), temperature)
        else:
            log_probs = model.score(batch, temperature)
        aux = ratio_arrays(log_probs, old, mask)
        if clip_range is None:
            return -total, aux
        clipped, _, is_clipped = clipped_sequence_loss(
            log_probs, old, advantages, mask, clip_range, response_count=1, importance_weights=importance
        )
        return clipped, {**aux, "clip_ratio": ops.sum(ops.cast(is_clipped, "float32"))}

    return loss_function


def ratio_arrays(log_probs: Any, old_log_probs: Any, response_mask: Any) -> dict[str, Any]:
    """How far the policy has moved on some responses: what `ratio_figures` reads.

    Args:
        log_probs, old_log_probs: float (b, t), under the policy now and when it sampled. response_mask: bool (b, t).

    Returns:
        `ratio` (b,), of whole responses to the policy that sampled; `token_deviation` and `farthest_deviation` (b,),
        sum and maximum of `|ratio - 1|` over its sampled tokens; `tokens` (b,), how many were sampled.
    """
    log_ratio = ops.where(response_mask, log_probs - old_log_probs, 0)
    deviation = ops.abs(ops.expm1(log_ratio))
    return {
        "ratio": ops.exp(ops.sum(log_ratio, axis=-1)),
        "token_deviation": ops.sum(deviation, axis=-1),
        "farthest_deviation": ops.max(deviation, axis=-1),
        "tokens": ops.sum(ops.cast(response_mask, "int32"), axis=-1),
    }


def count_responses(batch: Mapping[str, np.ndarray]) -> int:
    """Responses of a micro-batch that count: those with a sampled token."""
    return int(batch["response_mask"].any(axis=1).sum())


def ratio_figures(arrays: Arrays) -> dict[str, float]:
    """How far ratios to the policy that sampled lie from 1; in the first update of a rollout by rounding only.

    Returns:
        `ratio_deviation`: of the response that lies farthest. `ratio_deviation_token`: of a token, the mean over all.
        `ratio_deviation_farthest_token`: of the token that lies farthest.
    """
    return {
        "ratio_deviation": float(np.max(np.abs(arrays["ratio"] - 1))),
        "ratio_deviation_token": float(arrays["token_deviation"].sum(dtype=np.float64) / arrays["tokens"].sum()),
        "ratio_deviation_farthest_token": float(arrays["farthest_deviation"].max()),
    }


def sampling_figures(
    rollout: Rollout, old_log_probs: np.ndarray, first_update: Mapping[str, float]
) -> dict[str, float]:
    """`sampling_log_prob_difference/mean` and `/max`: how far the sampler's log-probabilities lie from the model's.

    Both are of the same tokens under the same weights, and differ by rounding: one token at a time with a cache, or all
    at once. More is a fault of one of them. Where the sampler's serve as the old ones, the first update has measured
    it: a ratio that lies so little from 1 is its logarithm.

    Args:
        rollout: n responses. old_log_probs: float32 (n, r), by the scorer, or the rollout's own.
        first_update: figures of the rollout's first update, see `ratio_figures`.
    """
    names = "sampling_log_prob_difference/mean", "sampling_log_prob_difference/max"
    if old_log_probs is rollout.log_probs:
        figures = first_update["ratio_deviation_token"], first_update["ratio_deviation_farthest_token"]
    else:
        difference = np.abs(rollout.log_probs - old_log_probs)[rollout.response_mask]
        figures = float(difference.mean(dtype=np.float64)), float(difference.max())
    return dict(zip(names, figures, strict=True))


def importance(
    rollout: Rollout, old_log_probs: np.ndarray, correction: Correction, limit: float
) -> tuple[np.ndarray | None, dict[str, float]]:
    """Factors that correct for a sampler other than the policy, and how far the two lie apart.

    Args:
        rollout: n responses. old_log_probs: float32 (n, r), under the policy. correction: whose ratio the factors are.
        limit: the largest factor.

    Returns:
        weights: float32 (n, r), see `truncated_importance_weights`; None without a correction.
        figures: estimates of KL(sampler || policy) in nats a token: `sampling_kl` by k3, never negative and far less
            noisy, `sampling_kl/k1`; with a correction also `importance_weight/mean` over tokens, and
            `importance_weight/truncated`, the share of tokens whose ratio was over the limit.
    """
    mask = rollout.response_mask
    log_ratio = ops.convert_to_tensor(np.where(mask, rollout.log_probs - old_log_probs, np.float32(0)))
    figures = {
        name: float(to_host(estimate(log_ratio)).sum(dtype=np.float64) / mask.sum())
        for name, estimate in (("sampling_kl", k3), ("sampling_kl/k1", k1))
    }
    if correction == "none":
        return None, figures
    weights, is_truncated = map(
        to_host, truncated_importance_weights(old_log_probs, rollout.log_probs, mask, limit, correction)
    )
    figures["importance_weight/mean"] = float(weights[mask].mean(dtype=np.float64))
    figures["importance_weight/truncated"] = float(is_truncated[mask].mean())
    return weights, figures


def update_batches(
    rollout: Rollout, arrays: Mapping[str, np.ndarray], micro_batch_size: int, counts: np.ndarray | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The micro-batches of one update, all of one shape; rows that fill one up do not count.

    Args:
        rollout: n responses.
        arrays: what the loss reads of them: name → float32 (n,) of each response, or (n, r) of each token;
            `old_log_probs` of each token at sampling time, and what the algorithm's `batch_arrays` adds.
        micro_batch_size: responses of a forward pass, as of `scoring_parts`.
        counts: bool (n,), False for responses that bear no loss, as if nothing had been sampled; default none.
    """
    for batch, rows in scoring_parts(rollout, micro_batch_size):
        count, targets = batch["target_ids"].shape
        for name, values in arrays.items():
            batch[name] = np.zeros((count, targets)[: values.ndim], np.float32)
            batch[name][: len(rows)] = values[rows, :targets] if values.ndim == 2 else values[rows]
        if counts is not None:
            batch["response_mask"][: len(rows)] &= counts[rows, None]
        yield batch


def completion_figures(rollout: Rollout) -> dict[str, float]:
    """`completions/mean_length`, `max_length`, and `clipped_ratio`: the share that ran into max_new_tokens."""
    return {
        "completions/mean_length": float(rollout.lengths.mean()),
        "completions/max_length": float(rollout.lengths.max()),
        "completions/clipped_ratio": float(1 - rollout.finished.mean()),
    }


def rollout_figures(
    rollout: Rollout, rewards: np.ndarray, parts: Arrays, sequence_kl: np.ndarray, entropy: np.ndarray
) -> dict[str, float]:
    """Figures of one rollout under their usual names.

    Args:
        rollout: p * k responses.
        rewards: float (p, k), before the KL charge and the penalty.
        parts: named rewards, float (p * k,) each, NaN where one does not apply.
        sequence_kl: float (p * k,), sum of log-ratios. entropy: float (p * k, r), 0 where nothing was sampled.
    """
    tokens = int(rollout.lengths.sum())
    responses = [rollout.response_list(row) for row in range(len(rollout))]
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(ddof=1)) if rewards.size > 1 else 0.0,
        "frac_reward_zero_std": float(np.mean(np.ptp(rewards, axis=1) == 0)),
        **part_means(parts),
        "kl": float(sequence_kl.sum() / tokens),
        "kl_sequence": float(sequence_kl.mean()),
        "entropy": float(entropy.sum(dtype=np.float64) / tokens),
        **completion_figures(rollout),
        "completions/distinct_bigrams": distinct_ngrams(responses, 2),
        "completions/equal_pairs": equal_pairs(responses, rewards.shape[1]),
    }
