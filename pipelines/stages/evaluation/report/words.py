"""What the report says about an evaluation, in words."""

from collections.abc import Sequence
from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import number, percent
from pipelines.report.parts import Figures
from pipelines.report.records import is_finite_number


def judge_words(judge: str | None) -> str:
    """A judge for readers: `gold` → `the gold judge`, `reward_model:reward` → `the reward model “reward”`."""
    if not judge:
        return "the judge"
    kind, _, name = judge.partition(":")
    if kind == "reward_model" and name:
        return f"the reward model “{name}”"
    if kind == "function" and name:
        return f"the function “{name}”"
    return f"the {judge.replace('_', '-')} judge"


def verdict(summary: Figures) -> str | None:
    """The headline: who won, by how much, on how many prompts; None without an evaluation."""
    evaluation = summary["evaluation"]
    if is_finite_number(evaluation["win_rate"]):
        rate = percent(evaluation["win_rate"], 0)
        bounds = report_format.interval(evaluation["win_rate_ci95"], as_percent=True, digits=0)
        relation = _relation(evaluation["win_rate_ci95"])
        prompts = f" of {number(evaluation['prompts'])} prompts" if evaluation["prompts"] else ""
        figures = " ".join(part for part in (rate, bounds) if part)
        short = report_format.short_names([evaluation["policy"], evaluation["baseline"]])
        names = f"{short[evaluation['policy']]} {relation} {short[evaluation['baseline']]}"
        return f"{names} under {judge_words(evaluation['judge'])}: {figures}{prompts}"
    return None


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


def _relation(bounds: Sequence[float] | None) -> str:
    if not bounds or not all(map(is_finite_number, bounds)):
        return "against"
    if bounds[0] > 0.5:
        return "beats"
    return "loses to" if bounds[1] < 0.5 else "is level with"
