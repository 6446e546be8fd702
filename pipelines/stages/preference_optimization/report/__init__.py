"""What policies that learned from preferences directly add to summary and report.

Looked at in `final.json`, all optional: `KEYS`. In `metrics.jsonl` `rewards/chosen` and `rewards/rejected` of training,
and `eval_rewards/accuracies` of held-out pairs.

Added to the summary: `preference_optimization`, a list of `{stage, KEYS}` in the workflow's order.
"""

from pathlib import Path
from typing import Any

from pipelines.report.format import percent
from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure
from pipelines.report.records import RunRecord, is_finite_number
from pipelines.stages.preference_optimization.report import figures as draw

KIND = "preference_optimization"
KEYS = (
    "loss",
    "steps",
    "eval_loss",
    "accuracy",
    "accuracy_ci95",
    "ceiling",
    "regret",
    "regret_ci95",
    "margin",
    "length_correlation",
    "pairs",
    "pair_prompts",
)


def _summarize(run: RunRecord) -> Figures:
    found = [{"stage": stage.name, **{key: stage.final.get(key) for key in KEYS}} for stage in run.of_kind(KIND)]
    return {KIND: found}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    stages = run.of_kind(KIND)
    if not stages:
        return None
    drawings = [*map(draw.rewards_of_both_sides, stages), draw.held_out_accuracy(stages)]
    return {
        "words": [words(found) for found in figures[KIND]],
        "drawings": [drawing for drawing in drawings if drawing],
    }


def _lines(figures: Figures) -> list[tuple[str, str]]:
    return [
        (f"{found['stage']} accuracy", f"{found['accuracy']:.3f}{interval(found['accuracy_ci95'])} on held-out pairs")
        for found in figures[KIND]
        if is_finite_number(found["accuracy"])
    ]


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    """How often each such policy of the run prefers what was preferred."""
    return [
        SeedFigure(f"{name}: right on held-out pairs", "percent", name, ("stages", name, "final", "accuracy"))
        for name, stage in figures["stages"].items()
        if stage["kind"] == KIND
    ]


def words(found: Figures) -> str:
    """What one such stage came to."""
    name, accuracy, ceiling = f"{found['stage']} ({found['loss']})", found["accuracy"], found["ceiling"]
    if not is_finite_number(accuracy):
        return f"{name} measured nothing on held-out pairs."
    possible = f", where {percent(ceiling)} is possible on average" if is_finite_number(ceiling) else ""
    return (
        f"By its own log-probabilities {name} prefers what was preferred in {percent(accuracy)} of the held-out pairs"
        f"{possible}. Whether its answers are better the evaluation says: log-probabilities of given answers do not."
    )


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-1",
    sections=(
        Section(KIND, "Direct preferences", Path(__file__).with_name("preference_optimization.html.j2"), _section),
    ),
    lines=_lines,
    over_seeds=_over_seeds,
)
