"""Pairs of answers before a judge that sees both, and what that says of the policies and of the judge."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.human_ratings import EXPORT_FILE, read_ratings, row_to_rate
from pipelines.host.files import write_json_lines
from pipelines.host.parts import Keep
from pipelines.sampling.prompts import prompt_text
from pipelines.schema.pairwise import JudgeEndpoint, JudgeModel
from pipelines.schema.roles import plain
from pipelines.scoring.pairwise.both_orders import Judged, PairToJudge, is_turned, judge_pairs
from pipelines.scoring.pairwise.making import make_judge
from pipelines.stages.context import StageContext
from pipelines.stages.side_by_side.answers import (
    ALL,
    CHOSEN,
    REJECTED,
    Answers,
    answers_of_rows,
    read_sets,
    sample_answers,
)
from pipelines.stages.side_by_side.config import SideBySide
from pipelines.stages.side_by_side.figures import UNRATED, Compared

LARGE_BIAS = 0.3
"""Of a position: two thirds of the single verdicts name the same place."""
MANY_UNREAD = 0.05
HEADLINE = (
    "pairs", "win_rate", "wins", "tie_rate", "loss_rate", "win_rate_ci95", "length_controlled",
    "length_controlled_ci95", "position_bias", "contradictions", "longer_wins",
)  # fmt: skip


def run(config: SideBySide, context: StageContext) -> dict:
    """Compare.

    Args:
        config: the stage's options. context: its surroundings; `verdicts.jsonl`, a line a pair, `samples.jsonl` and
            with `export` `pairs_to_rate.jsonl` go into `context.output`.

    Returns:
        `judge`, `answer`, `order`, `prompts`, `dropped_prompts`, `seen_elsewhere`; `comparisons`, of each policy
        against the first `policy`, `baseline`, `asked`, `unreadable`, `too_long` and `sets`, see `Compared.by_set`; and
        of the last of them over all sets, in the open, `policy`, `baseline` and the figures in `HEADLINE`.
    """
    sets = read_sets(config, context)
    ratings = None if config.ratings is None else context.file(config.ratings, "with ratings")
    answers = sample_answers(sets, config, context) if config.compare else answers_of_rows(sets)
    baseline, *policies = config.compare or (REJECTED, CHOSEN)
    pairs = {policy: answers.pairs(policy, baseline) for policy in policies}
    people = _people(pairs, ratings, config, context)
    seen = context.seen_elsewhere(config, answers.examples)
    if config.export:
        _export(pairs, context)
    compared = {
        policy: Compared(
            pairs[policy], judged, people[policy], answers.sets, answers.groups(), context.seed, context.name
        )
        for policy, judged in _judge_all(pairs, config, context).items()
    }
    comparisons = [_comparison(policy, baseline, one) for policy, one in compared.items()]
    _warn(comparisons, config, context)
    _write_verdicts(compared, baseline, context)
    _write_samples(answers, compared, config.samples_kept, context)
    last = comparisons[-1]
    return {
        "judge": config.judge_source,
        "answer": config.answer,
        "order": config.order,
        "prompts": len(answers.examples),
        "dropped_prompts": answers.dropped,
        "seen_elsewhere": seen,
        "policy": last["policy"],
        "baseline": baseline,
        **{key: last["sets"][ALL][key] for key in HEADLINE},
        "comparisons": comparisons,
    }


def _judge_all(
    pairs: Mapping[str, Sequence[PairToJudge]], config: SideBySide, context: StageContext
) -> dict[str, Judged]:
    """What the judge says of every policy's pairs."""
    context.doing("loading the judge")
    judge, found = make_judge(config, context, config.dtype), {}
    questions = sum(len(one) for one in pairs.values()) * (2 if config.order == "both" else 1)
    with context.progress(questions, "asking the judge", unit="questions") as progress:
        for policy, some in pairs.items():
            keep = _keeping(policy, some, config, context)
            advance = lambda done, tokens: progress.advance(done, work=tokens)  # noqa: E731
            found[policy] = judge_pairs(some, judge, config.order, context.seed, context.name, keep, advance)
    return found


def _keeping(policy: str, pairs: Sequence[PairToJudge], config: SideBySide, context: StageContext) -> Keep:
    """What keeps the judge's answers: in the stage's state until it is finished, at once where they were paid for; and
    for a later stage of the run that asks the same, such as the one that joins the ratings."""
    inside = context.parts(f"judge {policy}", at_once=isinstance(config.judge, JudgeEndpoint))
    if context.kept_parts is None or isinstance(config.judge, str):
        return inside
    judge = plain(config.judge)
    if isinstance(config.judge, JudgeModel):
        judge["model"] = context.kept_parts.digest_of(config.judge.model, "judge.model")
        if judge["model"] is None:
            return inside
    asked = hashlib.sha256(repr(list(pairs)).encode()).hexdigest()
    how = {"answer": config.answer, "order": config.order, "tokens": config.verdict_tokens, "dtype": config.dtype}
    return context.kept_parts.around(inside, {"judge": judge, "asked": asked, "stage": context.name, **how})


def _comparison(policy: str, baseline: str, compared: Compared) -> dict[str, Any]:
    judged = compared.judged
    return {
        "policy": policy,
        "baseline": baseline,
        "asked": judged.asked,
        "unreadable": judged.unreadable,
        "too_long": judged.too_long,
        "sets": compared.by_set(),
    }


def _people(
    pairs: Mapping[str, Sequence[PairToJudge]], ratings: Path | None, config: SideBySide, context: StageContext
) -> dict[str, np.ndarray | None]:
    """What people prefer, as of `Compared.people`: of rows the chosen answer."""
    if not config.compare:
        return {policy: np.ones(len(some), int) for policy, some in pairs.items()}
    if ratings is None:
        return dict.fromkeys(pairs)
    votes = read_ratings(ratings, {pair.identifier for some in pairs.values() for pair in some})
    turned = {name: -1 if is_turned(context.seed, context.name, name) else 1 for name in votes}
    return {
        policy: np.array(
            [votes[one.identifier] * turned[one.identifier] if one.identifier in votes else UNRATED for one in some]
        )
        for policy, some in pairs.items()
    }


def _export(pairs: Mapping[str, Sequence[PairToJudge]], context: StageContext) -> None:
    """The pairs for people, each once, in the order that a draw decides."""
    rows = {}
    for pair in (pair for some in pairs.values() for pair in some if pair.answers[0] != pair.answers[1]):
        first, second = (
            reversed(pair.answers) if is_turned(context.seed, context.name, pair.identifier) else pair.answers
        )
        rows[pair.identifier] = row_to_rate(pair.identifier, pair.prompt, first, second)
    write_json_lines(context.output / EXPORT_FILE, rows.values())


def _warn(comparisons: Sequence[Mapping[str, Any]], config: SideBySide, context: StageContext) -> None:
    """What must be known before a win rate is believed."""
    for one in comparisons:
        figures = one["sets"][ALL]
        bias, unread = figures["position_bias"], one["unreadable"] + one["too_long"]
        if bias is not None and abs(bias) > LARGE_BIAS:
            place = "first" if bias > 0 else "second"
            context.warn(
                f"the judge prefers whichever answer is shown {place}: position bias {bias:+.2f}, where 0 is fair"
            )
        if unread > MANY_UNREAD * max(one["asked"], 1):
            context.warn(
                f"{unread} of {one['asked']} questions have no verdict and count as ties: {one['unreadable']} answers "
                f"hold none, {one['too_long']} questions are too long for the judge"
            )
    if isinstance(config.judge, JudgeModel) and config.judge.model in (config.compare or ()):
        context.warn(f"{config.judge.model} judges its own answers, which judges favour")


def _write_verdicts(compared: Mapping[str, Compared], baseline: str, context: StageContext) -> None:
    rows = []
    for policy, one in compared.items():
        judged, outcomes = one.judged, one.judged.outcomes
        for i, pair in enumerate(one.pairs):
            rows.append(
                {
                    "id": pair.identifier, "set": one.sets[i], "policy": policy, "baseline": baseline,
                    "outcome": float(outcomes[i]),
                    "as_first": _number(judged.as_first[i]), "as_second": _number(judged.as_second[i]),
                    "log_odds": _number(judged.log_odds[i]),
                    "people": None if one.people is None or one.people[i] == UNRATED else int(one.people[i]),
                    "prompt": pair.prompt, "policy_answer": pair.answers[0], "baseline_answer": pair.answers[1],
                    "judge_as_first": judged.first_text[i], "judge_as_second": judged.second_text[i],
                }
            )  # fmt: skip
    write_json_lines(context.output / "verdicts.jsonl", rows)


def _write_samples(answers: Answers, compared: Mapping[str, Compared], count: int, context: StageContext) -> None:
    rows = [
        {
            "prompt": prompt_text(example),
            "completions": {name: texts[i] for name, texts in answers.texts.items()},
            "scores": {name: float(one.judged.outcomes[i]) for name, one in compared.items()},
        }
        for i, example in enumerate(answers.examples[:count])
    ]
    write_json_lines(context.output / "samples.jsonl", rows)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
