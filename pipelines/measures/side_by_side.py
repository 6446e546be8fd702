"""What a judge's verdicts on pairs say of two policies, and of the judge. Numpy only.

A verdict is 1 where the judge prefers the answer shown first, -1 where the one shown second, 0 where neither or where
its answer could not be read, NaN where it was not asked.
"""

import numpy as np
from numpy.typing import ArrayLike

from pipelines.measures.intervals import score_interval
from pipelines.measures.judges import rates_with_interval
from pipelines.measures.length_control import length_controlled
from pipelines.measures.statistics import spearman


def outcomes_of(as_first: ArrayLike, as_second: ArrayLike) -> np.ndarray:
    """The outcome of each pair for the policy: a win or loss only where all orders that were asked say so, so that
    contradicting ones are a tie (Zheng et al. 2023, arXiv:2306.05685, section 3.4).

    Args:
        as_first, as_second: float (n,), verdicts where the policy's answer was shown first, and second. A pair that was
            never asked for, as both answers read the same, is a tie.

    Returns:
        float64 (n,): 1 where the policy wins, 0.5 for a tie, 0 where it loses.
    """
    votes = np.stack([np.asarray(as_first, np.float64), -np.asarray(as_second, np.float64)])
    asked, total = (~np.isnan(votes)).sum(axis=0), np.nansum(votes, axis=0)
    return np.where(asked == 0, 0.5, np.where(total == asked, 1.0, np.where(total == -asked, 0.0, 0.5)))


def side_by_side_figures(
    as_first: ArrayLike, as_second: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike, groups: ArrayLike
) -> dict:
    """Rates of a policy against a baseline, and how sound the judge is.

    Args:
        as_first, as_second: float (n,), n >= 1, as of `outcomes_of`.
        lengths, other_lengths: (n,), of the policy's and the baseline's answers, in characters.
        groups: int (n,), equal where prompts are the same.

    Returns:
        `pairs`; `win_rate` and what goes with it, see `rates_with_interval`; `length_controlled` and its `_ci95`, see
        there; of the judge what `position_figures` and `length_figures` give.
    """
    outcomes = outcomes_of(as_first, as_second)
    differences = np.asarray(lengths, np.float64) - np.asarray(other_lengths, np.float64)
    controlled, interval = length_controlled(outcomes, differences, groups)
    return {
        "pairs": len(outcomes),
        **rates_with_interval(outcomes, np.asarray(groups)),
        "length_controlled": controlled,
        "length_controlled_ci95": None if interval is None else list(interval),
        **position_figures(as_first, as_second, groups),
        **length_figures(outcomes, differences, groups),
    }


def position_figures(as_first: ArrayLike, as_second: ArrayLike, groups: ArrayLike) -> dict:
    """What the place of an answer does to the judge.

    Returns:
        `position_bias`: 2 f - 1, of f, the share of single verdicts for the answer shown first among those for either:
        1 always takes the first, -1 the second; None where all are ties. `position_bias_ci95`. `contradictions`: of the
        pairs asked in both orders the share in which the verdicts name different policies; None without such pairs.
    """
    verdicts = np.stack([np.asarray(as_first, np.float64), np.asarray(as_second, np.float64)])
    decided = np.abs(verdicts) == 1
    votes, of_prompts = verdicts[decided], np.broadcast_to(np.asarray(groups), verdicts.shape)[decided]
    in_both = ~np.isnan(verdicts).any(axis=0)
    has_votes = votes.size > 0
    return {
        "position_bias": float(votes.mean()) if has_votes else None,
        "position_bias_ci95": list(score_interval(votes, (-1.0, 1.0), of_prompts)) if has_votes else None,
        "contradictions": float(np.mean(verdicts.prod(axis=0)[in_both] == 1)) if in_both.any() else None,
    }


def length_figures(outcomes: np.ndarray, differences: np.ndarray, groups: ArrayLike) -> dict:
    """What the length of an answer does to the judge. It need not be a fault: the longer answer may be the better.

    Args:
        outcomes: float (n,), of a policy. differences: float (n,), length of its answer minus that of the other.

    Returns:
        `longer_wins`: of the decided pairs of different lengths the share in which the longer answer won, None without
        any; `longer_wins_ci95`; `length_correlation`: Spearman's, of outcome and difference, None where one is
        constant.
    """
    told = (outcomes != 0.5) & (differences != 0)
    won = ((outcomes == 1) == (differences > 0))[told].astype(np.float64)
    correlation = spearman(outcomes, differences) if len(outcomes) > 1 else np.nan
    return {
        "longer_wins": float(won.mean()) if won.size else None,
        "longer_wins_ci95": list(score_interval(won, groups=np.asarray(groups)[told])) if won.size else None,
        "length_correlation": None if np.isnan(correlation) else correlation,
    }
