"""What evaluations of reward models add to summary and report.

Looked at in `final.json`, all optional: `KEYS`, see `run`.

Added to the summary: `reward_evaluations`, a list of `{stage, KEYS}` in the workflow's order.
"""

from pathlib import Path
from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import percent
from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure
from pipelines.report.records import RunRecord, is_finite_number

KIND = "reward_evaluation"
KEYS = ("reward", "mean_accuracy", "sections", "sets")
SUMMARY = "reward_evaluations"


def _summarize(run: RunRecord) -> Figures:
    return {
        SUMMARY: [{"stage": one.name, **{key: one.final.get(key) for key in KEYS}} for one in run.of_kind(KIND)],
    }


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    found = figures[SUMMARY]
    return {"words": [words(one) for one in found]} if found else None


def words(found: Figures) -> str:
    """What one such evaluation came to."""
    sections = found["sections"] or []
    if not is_finite_number(found["mean_accuracy"]) or not sections:
        return f"{found['stage']} measured nothing."
    name = report_format.short_names([found["reward"]])[found["reward"]]
    if len(sections) == 1:
        return f"“{name}” ranks {percent(found['mean_accuracy'])} of the pairs as they are labelled."
    worst = min(sections, key=lambda one: one["accuracy"])
    return (
        f"“{name}” ranks {percent(found['mean_accuracy'])} of the pairs as they are labelled, in the mean over "
        f"{len(sections)} sections that count alike; least in “{worst['section']}”, {percent(worst['accuracy'])}."
    )


def _lines(figures: Figures) -> list[tuple[str, str]]:
    lines = []
    for found in figures[SUMMARY]:
        if is_finite_number(found["mean_accuracy"]):
            lines.append((f"{found['stage']} mean accuracy", f"{found['mean_accuracy']:.3f}"))
        for one in found["sections"] or []:
            lines.append(
                (f"{found['stage']}: {one['section']}", f"{one['accuracy']:.3f}{interval(one['accuracy_ci95'])}")
            )
    return lines


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    """The mean of each such stage."""
    return [
        SeedFigure(f"{name}: mean accuracy", "percent", name, ("stages", name, "final", "mean_accuracy"))
        for name, stage in figures["stages"].items()
        if stage["kind"] == KIND
    ]


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-2",
    sections=(Section(KIND, "Reward models by set", Path(__file__).with_name("reward_evaluation.html.j2"), _section),),
    lines=_lines,
    over_seeds=_over_seeds,
)
