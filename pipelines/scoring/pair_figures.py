"""How well scores tell the preferred answer of held-out pairs: of a reward model, or of a policy by its own
log-probabilities."""

from collections.abc import Sequence

import numpy as np

from pipelines.algorithms.preference import accuracy_ceiling, regrets
from pipelines.data.encoding import EncodedPair
from pipelines.measures.intervals import groups_of, score_interval
from pipelines.measures.metrics import preference_metrics


def figures_of_pairs(
    chosen: np.ndarray,
    rejected: np.ndarray,
    pairs: Sequence[EncodedPair],
    prompts: Sequence[str],
    rng: np.random.Generator,
) -> dict:
    """Accuracy on pairs, and how it comes about.

    Args:
        chosen, rejected: float (n,), scores of both answers of each pair.
        prompts: what names the prompt of each pair; intervals are over prompts. rng: as of `preference_metrics`.

    Returns:
        `preference_metrics`, `pairs`, `pair_prompts` (how many prompts they have), and where the labelling model's
        probabilities are known, else None: `ceiling`, the expected accuracy of that model itself, `regret`, see
        `regrets`, and `regret_ci95`.
    """
    groups = groups_of(prompts)
    lengths = ([pair.chosen_length for pair in pairs], [pair.rejected_length for pair in pairs])
    return {
        **preference_metrics(chosen, rejected, *lengths, groups, rng),
        **_by_the_labelling_model([pair.probability for pair in pairs], chosen - rejected, groups),
        "pairs": len(pairs),
        "pair_prompts": len(set(prompts)),
    }


def _by_the_labelling_model(probabilities: list[float | None], margins: np.ndarray, groups: np.ndarray) -> dict:
    known = [p for p in probabilities if p is not None]
    if len(known) < len(probabilities):
        return {"ceiling": None, "regret": None, "regret_ci95": None}
    given_away = regrets(known, margins)
    return {
        "ceiling": accuracy_ceiling(known),
        "regret": float(given_away.mean()),
        "regret_ci95": list(score_interval(given_away, groups=groups)),
    }
