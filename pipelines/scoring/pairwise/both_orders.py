"""Pairs put before a judge, each in both orders or in one that is drawn."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gemma_keras.random import generator
from pipelines.data.hh_rlhf import Message
from pipelines.host.parts import Keep, compute_now
from pipelines.measures.side_by_side import outcomes_of
from pipelines.schema.pairwise import Order
from pipelines.scoring.pairwise.base import (
    READ,
    TOO_LONG,
    UNREADABLE,
    Advance,
    Comparison,
    PairwiseJudge,
    advance_nothing,
)


@dataclasses.dataclass(frozen=True)
class PairToJudge:
    """Two answers to a prompt.

    Args:
        prompt: text or turns. answers: the one whose outcome is counted, and the other.
        origin: where the prompt stands. identifier: keys the draws of the pair. rubric: what makes an answer good.
    """

    prompt: str | list[Message]
    answers: tuple[str, str]
    origin: str
    identifier: str
    rubric: str


@dataclasses.dataclass(frozen=True)
class Judged:
    """Of n pairs.

    Attributes:
        as_first, as_second: float64 (n,), verdicts where the counted answer was shown first, and second: 1 for the
            answer shown first, -1 for the second, 0 for neither; NaN where that was not asked.
        log_odds: float64 (n,), of the counted answer over the other, the mean over the orders; NaN where the judge does
            not say.
        first_text, second_text: what the judge wrote in each case; "" without.
        unreadable, too_long: how many questions had an answer without a verdict, or were too long for the judge.
        asked: how many questions there were.
    """

    as_first: np.ndarray
    as_second: np.ndarray
    log_odds: np.ndarray
    first_text: list[str]
    second_text: list[str]
    unreadable: int
    too_long: int
    asked: int

    @property
    def outcomes(self) -> np.ndarray:
        """See `outcomes_of`."""
        return outcomes_of(self.as_first, self.as_second)

    @property
    def unread(self) -> int:
        """Questions that have no verdict."""
        return self.unreadable + self.too_long


def judge_pairs(
    pairs: Sequence[PairToJudge],
    judge: PairwiseJudge,
    order: Order,
    seed: int,
    stage: str,
    keep: Keep = compute_now,
    advance: Advance = advance_nothing,
) -> Judged:
    """Ask a judge about pairs. Those whose answers read the same are ties that nobody is asked about.

    Args:
        order: both, or shuffled: drawn by (seed, stage, pair).
        keep, advance: as of `PairwiseJudge.decide`.
    """
    places = [
        (number, turned)
        for number, pair in enumerate(pairs)
        if pair.answers[0] != pair.answers[1]
        for turned in ((False, True) if order == "both" else (is_turned(seed, stage, pair.identifier),))
    ]
    found = judge.decide([_question(pairs[number], turned) for number, turned in places], keep, advance)
    verdicts, odds = np.full((2, len(pairs)), np.nan), np.full((2, len(pairs)), np.nan)
    texts = [[""] * len(pairs), [""] * len(pairs)]
    for row, (number, turned) in enumerate(places):
        verdicts[int(turned), number] = found.choice[row] if found.state[row] == READ else 0
        odds[int(turned), number] = found.log_odds[row]
        texts[int(turned)][number] = found.answers[row]
    counted = np.stack([odds[0], -odds[1]])
    known = ~np.isnan(counted)
    mean = np.nansum(counted, axis=0) / np.maximum(known.sum(axis=0), 1)
    state = found.state
    return Judged(
        verdicts[0], verdicts[1], np.where(known.any(axis=0), mean, np.nan), texts[0], texts[1],
        int((state == UNREADABLE).sum()), int((state == TOO_LONG).sum()), len(places),
    )  # fmt: skip


def is_turned(seed: int, stage: str, identifier: str) -> bool:
    """Whether a draw puts the second answer of a pair first, for a judge that is asked once and for people."""
    return bool(generator(seed, stage, "order", identifier).random() < 0.5)


def _question(pair: PairToJudge, turned: bool) -> Comparison:
    first, second = reversed(pair.answers) if turned else pair.answers
    return Comparison(pair.rubric, pair.prompt, first, second, pair.origin, (pair.identifier, int(turned)))
