"""Sampled responses to pairs, pairs to preferences: by a rater's scores or by human ratings."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.random import generator
from pipelines.algorithms.preference import preference_probability
from pipelines.data.human_ratings import read_ratings, row_to_rate
from pipelines.host.parts import Keep
from pipelines.measures.side_by_side import position_figures
from pipelines.sampling.prompts import Prompts
from pipelines.sampling.rollout import Rollout
from pipelines.schema.pairwise import Judging
from pipelines.scoring.pairwise.base import PairwiseJudge
from pipelines.scoring.pairwise.both_orders import PairToJudge, judge_pairs


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two different responses to one prompt, as rows of a rollout, in the order in which a rater sees them.

    Attributes:
        first, second: rows of the rollout.
        identifier: hash of the ids of prompt and responses; names the pair in files for human raters.
    """

    first: int
    second: int
    identifier: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A decided pair: rows of the rollout, and the labelling model's probability that chosen wins (None for human
    raters)."""

    chosen: int
    rejected: int
    probability: float | None


def make_pairs(rollout: Rollout, samples_per_prompt: int, seed: int, stage: str) -> tuple[list[Pair], int]:
    """All pairs of different responses to one prompt, each in an order drawn by (seed, stage, prompt, samples).

    Args:
        rollout: rows i * samples_per_prompt + j, sample j of prompt i.

    Returns:
        The pairs, and how many were dropped because both responses read the same.
    """
    pairs, identical = [], 0
    for start in range(0, len(rollout), samples_per_prompt):
        for i, j in itertools.combinations(range(samples_per_prompt), 2):
            first, second = start + i, start + j
            if _reads_the_same(rollout, first, second):
                identical += 1
                continue
            if generator(seed, stage, "order", int(rollout.prompt_index[start]), i, j).random() < 0.5:
                first, second = second, first
            pairs.append(Pair(first, second, _identifier(rollout, first, second)))
    return pairs, identical


def rate_by_scores(
    pairs: Sequence[Pair], scores: np.ndarray, prompt_index: np.ndarray, noise_scale: float, seed: int, stage: str
) -> tuple[list[Verdict], int]:
    """Verdicts of a Bradley-Terry rater.

    Args:
        pairs: to decide. scores: float (n,), of each row of the rollout. prompt_index: int (n,), prompt of each row.
        noise_scale: float >= 0; p = sigmoid(difference / noise_scale); 0 takes the better one, and ties are dropped.
        seed, stage: key of the draws, with the prompt and the number of the pair among its prompt's.

    Returns:
        The verdicts, and how many pairs were ties.
    """
    first = preference_probability(
        [scores[pair.first] for pair in pairs], [scores[pair.second] for pair in pairs], noise_scale
    )
    verdicts, ties = [], 0
    seen: Counter[int] = Counter()
    for pair, p in zip(pairs, first, strict=True):
        prompt = int(prompt_index[pair.first])
        draw = generator(seed, stage, "rating", prompt, seen[prompt]).random()
        seen[prompt] += 1
        if noise_scale == 0 and p == 0.5:
            ties += 1
        elif draw < p:
            verdicts.append(Verdict(pair.first, pair.second, float(p)))
        else:
            verdicts.append(Verdict(pair.second, pair.first, float(1 - p)))
    return verdicts, ties


def rate_by_people(pairs: Sequence[Pair], ratings: Path) -> tuple[list[Verdict], int, int]:
    """Verdicts of human raters; several ratings of one pair are decided by majority.

    Args:
        ratings: JSON lines `{"id": ..., "choice": "first" | "second" | "tie"}` for exported pairs.

    Returns:
        The verdicts, how many pairs were ties, how many nobody rated.

    Raises:
        DataError: file:line of a rating of an unknown pair or of an unknown choice.
    """
    votes = read_ratings(ratings, [pair.identifier for pair in pairs])
    verdicts, ties, unrated = [], 0, 0
    for pair in pairs:
        vote = votes.get(pair.identifier)
        if vote is None:
            unrated += 1
        elif vote == 0:
            ties += 1
        else:
            verdicts.append(
                Verdict(pair.first, pair.second, None) if vote > 0 else Verdict(pair.second, pair.first, None)
            )
    return verdicts, ties, unrated


def rate_by_judge(
    pairs: Sequence[Pair],
    rollout: Rollout,
    prompts: Prompts,
    settings: Judging,
    judge: PairwiseJudge,
    rubric: str,
    keep: Keep,
    seed: int,
    stage: str,
) -> tuple[list[Verdict], dict[str, Any]]:
    """Verdicts of a judge that sees both responses.

    Args:
        settings: in which orders it is asked. rubric: what makes a response good. keep: keeps the parts of its answers.
        seed, stage: key of the order, where it is drawn.

    Returns:
        The verdicts, with the chance of the labels over both orders where the judge has one. Figures: `ties`, which
        contradicting orders are, and of the judge `unread`, `position_bias` and `contradictions`.
    """
    asked = [
        PairToJudge(
            prompts.examples[rollout.prompt_index[pair.first]].prompt,
            (rollout.texts[pair.first], rollout.texts[pair.second]),
            prompts.examples[rollout.prompt_index[pair.first]].origin,
            pair.identifier,
            rubric,
        )
        for pair in pairs
    ]
    judged = judge_pairs(asked, judge, settings.order, seed, stage, keep)
    verdicts = []
    for pair, outcome, odds in zip(pairs, judged.outcomes, judged.log_odds, strict=True):
        p = None if np.isnan(odds) else float(1 / (1 + np.exp(-odds)))
        if outcome == 1:
            verdicts.append(Verdict(pair.first, pair.second, p))
        elif outcome == 0:
            verdicts.append(Verdict(pair.second, pair.first, None if p is None else 1 - p))
    groups = np.array([rollout.prompt_index[pair.first] for pair in pairs])
    found = position_figures(judged.as_first, judged.as_second, groups)
    figures = {
        "ties": len(pairs) - len(verdicts),
        "unread": judged.unread,
        "position_bias": found["position_bias"],
        "contradictions": found["contradictions"],
    }
    return verdicts, figures


def export_rows(pairs: Sequence[Pair], rollout: Rollout, prompts: Prompts) -> list[dict]:
    """What human raters are shown: `id`, `prompt`, `first`, `second`."""
    return [
        row_to_rate(
            pair.identifier,
            prompts.examples[rollout.prompt_index[pair.first]].prompt,
            rollout.texts[pair.first],
            rollout.texts[pair.second],
        )
        for pair in pairs
    ]


def preference_rows(
    verdicts: Sequence[Verdict], rollout: Rollout, prompts: Prompts, scores: np.ndarray | None
) -> list[dict]:
    """Preferences in the usual columns, with the ids exactly as sampled, and the prompt's content where a task
    decides that."""
    return [
        {
            "prompt": prompts.examples[rollout.prompt_index[verdict.chosen]].prompt,
            "chosen": rollout.texts[verdict.chosen],
            "rejected": rollout.texts[verdict.rejected],
            "prompt_ids": rollout.prompt_list(verdict.chosen),
            "chosen_ids": rollout.response_list(verdict.chosen),
            "rejected_ids": rollout.response_list(verdict.rejected),
            "score_chosen": None if scores is None else float(scores[verdict.chosen]),
            "score_rejected": None if scores is None else float(scores[verdict.rejected]),
            "probability": verdict.probability,
            "content_hash": prompts.examples[rollout.prompt_index[verdict.chosen]].content,
        }
        for verdict in verdicts
    ]


def _reads_the_same(rollout: Rollout, i: int, j: int) -> bool:
    return rollout.texts[i] == rollout.texts[j] and bool(rollout.finished[i] == rollout.finished[j])


def _identifier(rollout: Rollout, first: int, second: int) -> str:
    ids = [rollout.prompt_list(first), rollout.response_list(first), rollout.response_list(second)]
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
