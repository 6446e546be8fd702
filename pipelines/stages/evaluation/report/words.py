"""What the report says about an evaluation, in words."""

from collections.abc import Sequence
from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import number, percent
from pipelines.report.parts import Figures
from pipelines.report.records import is_finite_number
from pipelines.stages.evaluation.report.judge import judge_words, says_what_is_right


def verdict(summary: Figures) -> str | None:
    """The headline: who won, by how much, on how many prompts, whose judge said so, and what gold says; of a judge that
    says what is right, the shares of right answers. None without an evaluation."""
    evaluation = summary["evaluation"]
    if counts_right_answers(evaluation):
        short = report_format.short_names([evaluation["policy"], evaluation["baseline"]])
        policy, baseline = (share_words(evaluation, name) for name in short)
        relation = _relation(evaluation["difference"]["accuracy"].get("ci95"), level=0.0)
        return (
            f"{short[evaluation['policy']]} {relation} {short[evaluation['baseline']]} in right answers: {policy} to "
            f"{baseline}{_of_prompts(evaluation)}; difference {difference_words(evaluation, 'accuracy')}"
        )
    if not is_finite_number(evaluation["win_rate"]):
        return None
    rate = percent(evaluation["win_rate"], 0)
    bounds = report_format.interval(evaluation["win_rate_ci95"], as_percent=True, digits=0)
    relation = _relation(evaluation["win_rate_ci95"])
    short = report_format.short_names([evaluation["policy"], evaluation["baseline"]])
    policy = short[evaluation["policy"]]
    judge = judge_words(evaluation["judge"], evaluation["trained_on_judge"].get(evaluation["policy"]), policy)
    gold, parts = difference_words(evaluation, "gold"), part_words(evaluation)
    return (
        f"{policy} {relation} {short[evaluation['baseline']]}, judged by {judge}: {rate} {bounds}".rstrip()
        + _of_prompts(evaluation)
        + (f"; gold {gold}" if gold else "")
        + (f": {parts}" if gold and parts else "")
    )


def counts_right_answers(evaluation: dict[str, Any]) -> bool:
    """True where the share of right answers is what the evaluation was for: its judge says what is right, and both
    policies of the pair that stands for the run have such a share."""
    policies = [evaluation["policies"].get(evaluation[side]) or {} for side in ("policy", "baseline")]
    shares = [policy.get("accuracy") for policy in policies]
    return (
        says_what_is_right(evaluation["judge"])
        and all(map(is_finite_number, shares))
        and difference_words(evaluation, "accuracy") != ""
    )


def share_words(evaluation: dict[str, Any], name: str) -> str:
    """A policy's share of right answers, `41.2 % [38.0, 44.4]`."""
    policy = evaluation["policies"][name]
    bounds = report_format.interval(policy.get("accuracy_ci95"), as_percent=True)
    return f"{percent(policy['accuracy'])} {bounds}".rstrip()


def difference_words(evaluation: dict[str, Any], name: str) -> str:
    """A difference of the pair that stands for the run, `+0.145 [0.137, 0.153]`; empty where there is none."""
    found = (evaluation["difference"] or {}).get(name) or {}
    if not is_finite_number(found.get("mean")):
        return ""
    return f"{report_format.signed(found['mean'])} {report_format.interval(found.get('ci95'))}".rstrip()


def part_words(evaluation: dict[str, Any], with_intervals: bool = False) -> str:
    """By how much the parts of gold differ in the pair that stands for the run, `right +0.085, polite +0.498`."""
    parts = (evaluation["difference"] or {}).get("gold_parts") or {}
    return ", ".join(
        f"{name} {report_format.signed(found['mean'])}"
        + (f" {report_format.interval(found.get('ci95'))}".rstrip() if with_intervals else "")
        for name, found in parts.items()
        if is_finite_number(found.get("mean"))
    )


def overlap_words(evaluation: dict[str, Any]) -> str:
    """Whether what is compared was trained on the evaluation's prompts; empty where nothing is known of that."""
    seen = {name: counts for name, counts in (evaluation.get("seen_elsewhere") or {}).items() if counts}
    if not seen:
        return ""
    shared = ", ".join(
        f"{number(counts['same_content'])} by {name} ({number(counts['same_text'])} letter by letter)"
        for name, counts in seen.items()
        if counts["same_content"]
    )
    return f"Some were trained on: {shared}." if shared else f"None of them was trained on by {', '.join(seen)}."


def _of_prompts(evaluation: dict[str, Any]) -> str:
    return f" of {number(evaluation['prompts'])} prompts" if evaluation["prompts"] else ""


def _relation(bounds: Sequence[float] | None, level: float = 0.5) -> str:
    """Which side of `level`, where the two are equal, an interval lies on."""
    if not bounds or not all(map(is_finite_number, bounds)):
        return "against"
    if bounds[0] > level:
        return "beats"
    return "loses to" if bounds[1] < level else "is level with"
