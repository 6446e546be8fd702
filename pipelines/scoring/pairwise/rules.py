"""Judges that read nothing: what any other judge has to be better than.

On the pairs of AlpacaEval the longer answer is what people prefer in 62 % of cases, and people agree with each other in
66 %; on HH-RLHF's harmless pairs the shorter one is in 56 %.
"""

from collections.abc import Sequence

import numpy as np

from gemma_keras.random import generator
from pipelines.host.parts import Keep, compute_now
from pipelines.schema.pairwise import RuleName
from pipelines.scoring.pairwise.base import Advance, Comparison, PairwiseJudge, Verdicts, advance_nothing

RULES: tuple[RuleName, ...] = ("longest", "shortest", "random")


class RuleJudge(PairwiseJudge):
    """Takes the longer answer, the shorter, or either by a draw; characters count, and equal lengths are a tie.

    Args:
        rule: which. seed: of the draws, with the key of each question.
    """

    def __init__(self, rule: RuleName, seed: int) -> None:
        self.source, self._rule, self._seed = rule, rule, seed

    def decide(
        self, asked: Sequence[Comparison], keep: Keep = compute_now, advance: Advance = advance_nothing
    ) -> Verdicts:
        """See `PairwiseJudge.decide`."""
        choice = np.array([self._choice(one) for one in asked], np.int8)
        advance(len(asked), 0)
        return Verdicts(choice, np.zeros(len(asked), np.int8), np.full(len(asked), np.nan), [""] * len(asked))

    def _choice(self, one: Comparison) -> int:
        if self._rule == "random":
            return 1 if generator(self._seed, *one.key, "random judge").random() < 0.5 else -1
        longer = int(np.sign(len(one.first) - len(one.second)))
        return longer if self._rule == "longest" else -longer
