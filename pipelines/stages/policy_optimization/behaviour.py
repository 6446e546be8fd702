"""The log-probabilities with which a rollout was drawn: the sampler's where they are as good, else those of a second
pass over the responses, which costs a tenth of a step."""

from collections.abc import Callable

import numpy as np

from pipelines.sampling.rollout import Rollout

MOST_DEVIATION = 1e-5
"""How far from 1 the ratio of a token's two probabilities may lie, in the mean: what float32 rounds. In half precision
decoding a token at a time and scoring all at once differ by a thousand times as much."""

Scorer = Callable[[Rollout], tuple[np.ndarray, np.ndarray]]


class BehaviourScorer:
    """Old log-probabilities and entropies of rollouts, as a `ResponseScorer` gives them.

    The first rollout is scored; where the sampler's log-probabilities agree with that, the next ones are not, until the
    two are compared again. Where they do not agree, each rollout is scored.

    Args:
        scorer: the second pass, by the weights that drew the rollout.
        compare_every: rollouts from one comparison to the next; 0 compares the first alone.

    Attributes:
        seen: rollouts so far. sampler_agrees: as of the last comparison.
    """

    def __init__(self, scorer: Scorer, compare_every: int) -> None:
        self._scorer = scorer
        self._compare_every = compare_every
        self.seen = 0
        self.sampler_agrees = False

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Args: a rollout of n responses with `entropy`. Returns: log_probs and entropy float32 (n, r), 0 where nothing
        was sampled; `rollout.log_probs` itself where no second pass was made."""
        is_due = self._compare_every > 0 and self.seen % self._compare_every == 0
        self.seen += 1
        if self.sampler_agrees and not is_due and rollout.entropy is not None:
            return rollout.log_probs, rollout.entropy
        log_probs, entropy = self._scorer(rollout)
        ratios = np.exp((log_probs - rollout.log_probs)[rollout.response_mask].astype(np.float64))
        self.sampler_agrees = bool(np.abs(ratios - 1).mean() <= MOST_DEVIATION)
        return log_probs, entropy
