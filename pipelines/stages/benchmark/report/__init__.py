"""What benchmarks add to summary and report.

Looked at in `final.json`, all optional: `columns`, `benchmarks` and `settings`, see `run`.

Added to the summary: `benchmarks`, a list of `{stage, columns, benchmarks, settings}` in the workflow's order.
"""

from pathlib import Path
from typing import Any

from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure
from pipelines.report.records import RunRecord, is_finite_number
from pipelines.stages.benchmark import tables
from pipelines.stages.benchmark.card import card

KIND = "benchmark"
SUMMARY = "benchmarks"
_NO_BREAK = "\N{NO-BREAK SPACE}"
_ROW = ("model", "benchmark", "skipped", "metric", "published", "suite")


def _summarize(run: RunRecord) -> Figures:
    found = []
    for one in run.of_kind(KIND):
        rows = one.final.get("benchmarks")
        known = isinstance(rows, list) and all(isinstance(row, dict) and set(_ROW) <= set(row) for row in rows)
        if known and isinstance(one.final.get("columns"), list):
            settings = one.final.get("settings") or {}
            found.append({"stage": one.name, "columns": one.final["columns"], "benchmarks": rows, "settings": settings})
    return {SUMMARY: found}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    found = figures[SUMMARY]
    if not found:
        return None
    return {
        "tables": [
            {
                "stage": one["stage"],
                "models": tables.models_of(one),
                "columns": one["columns"],
                "rows": tables.by_benchmark(one),
                "means": tables.means(one),
                "others": tables.other_figures(one),
                "notes": tables.notes(one),
            }
            for one in found
        ],
        "asked_how": tables.asked_how,
        "with_interval": lambda one: tables.with_interval(one).replace(" ", _NO_BREAK),
        "written": tables.written,
    }


def _lines(figures: Figures) -> list[tuple[str, str]]:
    lines = []
    for found in figures[SUMMARY]:
        models = tables.models_of(found)
        for one in found["benchmarks"]:
            if is_finite_number(one.get("value")):
                name = f"{found['stage']}: {one['benchmark']}, {models[one['model']]}"
                lines.append((name, f"{one['value']:.3f}{interval(one['ci95'])}"))
    return lines


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    """The figure of each model on each benchmark that is a share."""
    found = []
    for name, stage in figures["stages"].items():
        if stage["kind"] != KIND:
            continue
        for place, one in enumerate(stage["final"].get("benchmarks") or []):
            if not one["skipped"] and one["metric"].startswith(tables.SHARES):
                path = ("stages", name, "final", "benchmarks", place, "value")
                found.append(SeedFigure(f"{name}: {one['benchmark']}, {one['model']}", "percent", name, path))
    return found


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-2",
    sections=(Section(KIND, "Benchmarks", Path(__file__).with_name("benchmark.html.j2"), _section),),
    lines=_lines,
    card=lambda figures: [line for found in figures[SUMMARY] for line in (*card(found), "")],
    over_seeds=_over_seeds,
)
