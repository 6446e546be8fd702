"""Side by side: which of two responses a judge prefers, in an order the judge cannot learn from, and rates with
intervals."""

from collections.abc import Callable

import numpy as np

from gemma_keras.random import generator
from pipelines.measures.intervals import Bounds, mean_interval, score_interval
from pipelines.measures.statistics import outcome_rates

TIE = 1e-6  # scores closer than this are equal: one response scored in two batches may differ in its last bits


def judge_scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The verdict of a judge that scores each response by itself.

    Args:
        first, second: float (n,), scores of the responses in the order shown.

    Returns:
        float64 (n,): 1 where the first is better, 0.5 for a tie, 0 where the second is.
    """
    difference = first - second
    return np.where(np.abs(difference) <= TIE, 0.5, (difference > 0).astype(np.float64))


def shuffled_outcomes(
    policy: np.ndarray, baseline: np.ndarray, seed: int, *keys: int | str, judge: Callable = judge_scores
) -> tuple[np.ndarray, float | None]:
    """Outcomes for a policy, each pair shown to the judge in an order drawn by (seed, *keys).

    Args:
        policy, baseline: (n,), what the judge is shown of each response: for a scoring judge, its scores.
        judge: (first, second) -> 1, 0.5 or 0 for the first, (n,).

    Returns:
        outcomes float64 (n,), 1 where the policy wins. And the share of decided pairs in which the first one shown won:
        near 0.5 unless the judge is biased to a position; None where all are ties.
    """
    is_first = generator(seed, *keys, "order").random(len(policy)) < 0.5
    verdict = judge(np.where(is_first, policy, baseline), np.where(is_first, baseline, policy))
    decided = verdict[verdict != 0.5]
    return np.where(is_first, verdict, 1 - verdict), float(decided.mean()) if len(decided) else None


def compare(policy: np.ndarray, baseline: np.ndarray, groups: np.ndarray, seed: int, *keys: int | str) -> dict:
    """Win, tie and loss rates of a policy over prompts, judged by scores.

    Args:
        policy, baseline: float (n,), the judge's scores of one response to each prompt.
        groups: int (n,), equal where prompts are the same.

    Returns:
        `win_rate` (wins + ties / 2), `wins`, `tie_rate`, `loss_rate`, `win_rate_ci95` [low, high], `first_shown_wins`.
    """
    outcomes, first_wins = shuffled_outcomes(policy, baseline, seed, *keys)
    return {**rates_with_interval(outcomes, groups), "first_shown_wins": first_wins}


def rates_with_interval(outcomes: np.ndarray, groups: np.ndarray) -> dict:
    """Win, tie and loss rates, ties split evenly, with the interval of the win rate over prompts.

    Args:
        outcomes: float (n,), 1 win, 0.5 tie, 0 loss. groups: int (n,), equal where prompts are the same.

    Returns:
        `win_rate` (wins + ties / 2), `wins`, `tie_rate`, `loss_rate`, `win_rate_ci95` [low, high].
    """
    return {**outcome_rates(outcomes), "win_rate_ci95": list(score_interval(outcomes, (0.0, 1.0), groups))}


def mean_with_interval(values: np.ndarray, groups: np.ndarray, bounds: Bounds | None) -> dict:
    """`mean` and `ci95` [low, high] or None, over prompts.

    Args:
        values: float (n,). groups: int (n,), equal where prompts are the same.
        bounds: of the values, or None.
    """
    interval = mean_interval(values, groups, bounds)
    return {"mean": float(np.mean(values)), "ci95": None if interval is None else list(interval)}


def difference_with_interval(
    policy: np.ndarray, baseline: np.ndarray, groups: np.ndarray, bounds: Bounds | None
) -> dict:
    """`mean` and `ci95` of policy - baseline, both on the same prompts.

    Args:
        policy, baseline: float (n,), one value a prompt. groups: int (n,), equal where prompts are the same.
        bounds: of each of the two, or None.
    """
    widest = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return mean_with_interval(policy - baseline, groups, widest)
