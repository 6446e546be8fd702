"""What reward models add to summary and report.

Looked at in `final.json`, all optional: `KEYS`, `length_correlation`, `token_agreement`; `accuracy_by_margin:
[{"margin_from", "margin_to", "accuracy", "accuracy_ci95", "pairs"}]` (margin: |r_chosen - r_rejected|, raw) and
`margin_histogram: {"edges": [n + 1], "counts": [n]}` of r_chosen - r_rejected (below zero = ranked wrongly).

Added to the summary: `reward_models`, a list of `{stage, KEYS}` in the workflow's order, and `reward_model`, the one of
them that speaks for the run: the last of those `rewarding`, or the last of all. Intervals are over prompts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.report.format import interval as interval_words
from pipelines.report.format import percent
from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure, Tile
from pipelines.report.records import RunRecord, StageRecord, is_finite_number
from pipelines.schema.roles import references
from pipelines.stages.registry import KINDS
from pipelines.stages.reward_modeling.report import figures as draw

KIND = "reward_modeling"
KEYS = (
    "accuracy",
    "accuracy_ci95",
    "ceiling",
    "regret",
    "regret_ci95",
    "calibration_error",
    "calibration_error_ci95",
    "calibration_error_if_perfect",
    "pairs",
    "pair_prompts",
)


def rewarding(stages: Sequence[StageRecord]) -> list[str]:
    """The reward models of a run that something was trained on or chosen by, and that do not only judge."""
    named = {
        one.target
        for stage in stages
        if stage.kind in KINDS and KINDS[stage.kind].produces
        for one in references(KINDS[stage.kind], stage.config)
        if one.is_reward
    }
    return [stage.name for stage in stages if stage.kind == KIND and stage.name in named]


def _summarize(run: RunRecord) -> Figures:
    found = {
        stage.name: {"stage": stage.name, **{key: stage.final.get(key) for key in KEYS}} for stage in run.of_kind(KIND)
    }
    name = next(reversed(rewarding(run.stages) or list(found)), None)
    nothing = dict.fromkeys(("stage", *KEYS))
    return {"reward_models": list(found.values()), "reward_model": found[name] if name else nothing}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any]:
    stages = run.of_kind(KIND)
    return {
        "names": [stage.name for stage in stages],
        "rewarding": rewarding(run.stages),
        "words": [words(stage.final) for stage in stages],
        "accuracy_drawings": [draw.reward_model_accuracy(stage.final, stage.name) for stage in stages],
        "calibration_drawings": [
            draw.margin_calibration(stage.final.get("accuracy_by_margin") or [], stage.name) for stage in stages
        ],
        "histogram_drawings": [
            draw.margin_histogram(stage.final.get("margin_histogram"), stage.name) for stage in stages
        ],
    }


def _tiles(figures: Figures) -> list[Tile]:
    several = len(figures["reward_models"]) > 1
    label = f"accuracy of {figures['reward_model']['stage']}" if several else "reward model accuracy"
    return [
        Tile(label, "percent", ("reward_model", "accuracy"), ("reward_model", "accuracy_ci95")),
        Tile("its ceiling", "percent", ("reward_model", "ceiling")),
        Tile("its regret", "percent", ("reward_model", "regret"), ("reward_model", "regret_ci95")),
    ]


def _lines(figures: Figures) -> list[tuple[str, str]]:
    models = figures["reward_models"]
    lines = []
    for found in models:
        name = found["stage"] if len(models) > 1 else "reward model"
        if is_finite_number(found["accuracy"]):
            ceiling = f", ceiling {found['ceiling']:.3f}" if is_finite_number(found["ceiling"]) else ""
            lines.append((f"{name} accuracy", f"{found['accuracy']:.3f}{interval(found['accuracy_ci95'])}{ceiling}"))
        if is_finite_number(found["regret"]):
            lines.append((f"{name} regret", f"{found['regret']:.3f}{interval(found['regret_ci95'])}"))
    return lines


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    """Of each reward model of the run how often it is right, and its regret where that is known."""
    return [
        SeedFigure(f"{name}: {label}", style, name, ("stages", name, "final", key))
        for name, stage in figures["stages"].items()
        if stage["kind"] == KIND
        for key, label, style in (("accuracy", "right on held-out pairs", "percent"), ("regret", "regret", "percent"))
    ]


def verdict(figures: Figures) -> str | None:
    """How often the reward model is right, and how often it could be."""
    found = figures["reward_model"]
    if not is_finite_number(found["accuracy"]):
        return None
    ceiling = f", where {percent(found['ceiling'])} is possible" if is_finite_number(found["ceiling"]) else ""
    return f"{found['stage']} ranks {percent(found['accuracy'])} of held-out pairs as the rater did{ceiling}"


def words(figures: Figures) -> str:
    """Where the accuracy stands between chance and the ceiling, and how much of the gap is the model's own."""
    accuracy, ceiling = figures.get("accuracy"), figures.get("ceiling")
    if not is_finite_number(accuracy):
        return "The stage measured no accuracy on held-out pairs."
    if not is_finite_number(ceiling):
        share = percent(accuracy)
        return f"It ranks {share} of the held-out pairs as the rater did; the ceiling of these labels is not known."
    gap = 100 * (ceiling - accuracy)
    side = "below" if gap >= 0 else "above"
    return (
        f"It ranks {percent(accuracy)} of the held-out pairs as the rater did, {abs(gap):.1f} points {side} "
        f"the ceiling of {percent(ceiling)}, which a perfect model would reach on average because the rater is noisy."
        + _regret_words(figures)
    )


def _regret_words(figures: Figures) -> str:
    regret = figures.get("regret")
    if not is_finite_number(regret):
        return ""
    bounds = interval_words(figures.get("regret_ci95"), as_percent=True)
    return (
        " By the rater's own probabilities, free of that noise, its choices give away "
        f"{100 * regret:.1f} {bounds}".rstrip()
        + " points: its regret."
    )


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-2",
    sections=(Section("reward_model", "Reward model", Path(__file__).with_name("reward_model.html.j2"), _section),),
    tiles=_tiles,
    lines=_lines,
    over_seeds=_over_seeds,
    verdict=verdict,
)
