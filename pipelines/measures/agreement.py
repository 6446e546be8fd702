"""How far two raters agree on the same pairs, a judge and people. Numpy only.

A verdict is 1 where the answer shown first is better, -1 where the one shown second is, 0 for neither. Both raters' are
of one order, in which neither policy stands first by rule, so that a judge that always names one policy earns nothing
by chance alone.
"""

import numpy as np
from numpy.typing import ArrayLike

from pipelines.measures.intervals import score_interval, unskewed_t_interval

VERDICTS = (1, 0, -1)


def agreement_figures(judge: ArrayLike, people: ArrayLike, groups: ArrayLike) -> dict:
    """Agreement and Cohen's kappa of two raters.

    Args:
        judge, people: int (n,), n >= 1, verdicts on the same pairs. groups: (n,), equal where prompts are the same.

    Returns:
        `pairs`. `agreement`: 1 where both say the same, 0.5 where one of them says neither, 0 where they contradict, in
        the mean; a coin has 0.5. `agreement_ci95`. `agreement_decided` and `decided`: share of the same among pairs
        that neither calls a tie, and how many these are. `kappa`, `kappa_ci95`.
    """
    judge, people = np.asarray(judge, np.float64), np.asarray(people, np.float64)
    same = 1 - np.abs(judge - people) / 2
    decided = (judge != 0) & (people != 0)
    kappa, interval = cohens_kappa(judge, people, groups)
    return {
        "pairs": len(judge),
        "agreement": float(same.mean()),
        "agreement_ci95": list(score_interval(same, groups=groups)),
        "agreement_decided": float(same[decided].mean()) if decided.any() else None,
        "decided": int(decided.sum()),
        "kappa": kappa,
        "kappa_ci95": interval,
    }


def cohens_kappa(
    first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None
) -> tuple[float | None, list[float] | None]:
    """(p_o - p_e) / (1 - p_e): of p_o, the share of pairs with the same verdict, what is above p_e, that of two raters
    who draw theirs by themselves from the same shares of verdicts.

    Args:
        first, second: int (n,), each of `VERDICTS`. groups: (n,), equal where prompts are the same.

    Returns:
        Kappa, None where both always say the same one thing. Its 95 % interval over prompts, by the influence of each
        pair, whose variance is that of Fleiss, Cohen and Everitt 1969; None where all pairs say the same.

    Source: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    of_either = [np.asarray(one)[:, None] == np.array(VERDICTS) for one in (first, second)]
    of_first, of_second = (one.mean(axis=0) for one in of_either)
    is_same = (of_either[0] & of_either[1]).any(axis=1)
    observed, expected = float(is_same.mean()), float(of_first @ of_second)
    if expected >= 1:
        return None, None
    kappa = (observed - expected) / (1 - expected)
    by_chance = of_either[0] @ of_second + of_either[1] @ of_first - 2 * expected
    influence = ((is_same - observed) - (1 - kappa) * by_chance) / (1 - expected)
    found = unskewed_t_interval(kappa + influence, groups)
    return kappa, None if found is None else [max(-1.0, found[0]), min(1.0, found[1])]
