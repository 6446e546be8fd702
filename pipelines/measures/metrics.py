"""Figures about a training run, computed from plain numbers on the host (no Keras)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipelines.measures.calibration import calibration_figures
from pipelines.measures.intervals import score_interval
from pipelines.measures.statistics import spearman


def curve_flatness(curve: Sequence[Sequence[float]], last_share: float = 0.2) -> float | None:
    """How much a held-out loss still moves at the end of training.

    Args:
        curve: (step, loss) points in order of steps.
        last_share: float in (0, 1]. The part of the steps that is looked at, from the end.

    Returns:
        (largest - smallest) / |last| over the points of the last `last_share` of the steps, the last point at or before
        its beginning included, so that the whole stretch is covered; 0.01 reads "moves by 1 %". None with fewer than
        three points in all.
    """
    if len(curve) < 3:
        return None
    steps = np.array([step for step, _ in curve], np.float64)
    losses = np.array([loss for _, loss in curve], np.float64)
    begin = steps[-1] - last_share * (steps[-1] - steps[0])
    first = max(int(np.searchsorted(steps, begin, side="right")) - 1, 0)
    tail = losses[first:]
    return float((tail.max() - tail.min()) / abs(tail[-1])) if tail[-1] else None


def accuracy_by_margin(margins: np.ndarray, groups: np.ndarray, buckets: int = 4) -> list[dict]:
    """Accuracy among pairs that the model finds close, up to those it finds clear.

    Args:
        margins: float (n,). Reward of the chosen answer minus that of the rejected one.
        groups: int (n,), equal for pairs of one prompt.
        buckets: int. How many, of (nearly) equal size, by |margin|.

    Returns:
        One dict a bucket, the closest pairs first: `margin_from`, `margin_to` (|margin|), `accuracy`, `accuracy_ci95`,
        `pairs`.
    """
    margins = np.asarray(margins, np.float64)
    order = np.argsort(np.abs(margins), kind="stable")
    rows = []
    for part in np.array_split(order, min(buckets, len(order))):
        sizes = np.abs(margins[part])
        row = {"margin_from": float(sizes.min()), "margin_to": float(sizes.max())}
        rows.append({**row, **_accuracy(margins[part], groups[part]), "pairs": len(part)})
    return rows


def margin_histogram(margins: np.ndarray, bins: int = 20) -> dict:
    """Counts of chosen minus rejected reward: `edges` [n + 1], `counts` [n]; below zero the pair is ranked wrongly."""
    counts, edges = np.histogram(np.asarray(margins, np.float64), bins=bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def preference_metrics(
    chosen: ArrayLike,
    rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    groups: np.ndarray,
    rng: np.random.Generator,
) -> dict:
    """What a reward model does on pairs.

    Args:
        chosen, rejected: float (n,). Raw rewards of the two answers of each pair.
        chosen_lengths, rejected_lengths: int (n,). Response tokens of the two answers.
        groups: int (n,), equal for pairs of one prompt; intervals are over prompts.
        rng: for `calibration_figures`.

    Returns:
        `accuracy` (a tie is wrong), `accuracy_ci95`, `margin` (mean difference), `raw_reward_mean`, `raw_reward_min`,
        `raw_reward_max` over both sides, `calibration_figures`, `accuracy_by_margin`, `margin_histogram`,
        `length_correlation` (rank correlation of reward and response length over both sides, None where either does not
        vary).

    Raises:
        ValueError: no pairs, or sides of different length.
    """
    chosen, rejected = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    if not len(chosen) or len(chosen) != len(rejected):
        raise ValueError(
            f"Expected as many chosen as rejected rewards, at least one. Received: {len(chosen)} and {len(rejected)}"
        )
    margins = chosen - rejected
    both = np.concatenate([chosen, rejected])
    confidence = 1.0 / (1.0 + np.exp(-np.abs(margins)))
    length_correlation = spearman(both, np.concatenate([chosen_lengths, rejected_lengths]))
    return {
        **_accuracy(margins, groups),
        "margin": float(margins.mean()),
        "raw_reward_mean": float(both.mean()),
        "raw_reward_min": float(both.min()),
        "raw_reward_max": float(both.max()),
        **calibration_figures(confidence, margins > 0, groups, rng),
        "accuracy_by_margin": accuracy_by_margin(margins, groups),
        "margin_histogram": margin_histogram(margins),
        "length_correlation": length_correlation if math.isfinite(length_correlation) else None,
    }


def _accuracy(margins: np.ndarray, groups: np.ndarray) -> dict:
    is_right = margins > 0
    return {"accuracy": float(is_right.mean()), "accuracy_ci95": list(score_interval(is_right, groups=groups))}
