"""What a look for memorized texts adds to summary and report.

Looked at in `final.json`, all optional: `rows`, `by_repeats`, `examples`, `passed_over`, see `run`.

Added to the summary: `memorization`, a list of `{stage, prompt_tokens, continuation_tokens, distance, rows, by_repeats,
examples, passed_over}` in the workflow's order.
"""

from pathlib import Path
from typing import Any

from pipelines.report.card import table
from pipelines.report.format import interval as as_interval
from pipelines.report.format import percent, short_names
from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure
from pipelines.report.records import RunRecord

KIND = "memorization"
SUMMARY = "memorization"
GROUPS = {
    "trained": "was trained on it", "unseen": "was not trained on it", "given": "not known",
}  # fmt: skip
_HEAD = ("model", "source", "the model", "documents", "exact", "approximate", "personal data in it")
_SETTINGS = ("prompt_tokens", "continuation_tokens", "distance")


def _summarize(run: RunRecord) -> Figures:
    found = []
    for one in run.of_kind(KIND):
        if isinstance(one.final.get("rows"), list):
            keys = ("rows", "by_repeats", "examples", "passed_over")
            settings = {key: one.config.get(key) for key in _SETTINGS}
            found.append({"stage": one.name, **settings, **{key: one.final.get(key) or [] for key in keys}})
    return {SUMMARY: found}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    found = figures[SUMMARY]
    if not found:
        return None
    names = short_names(dict.fromkeys(row["model"] for one in found for row in one["rows"]))
    return {"found": found, "groups": GROUPS, "names": names, "personal": _personal}


def _personal(row: Figures) -> str:
    """`2 sensitive (credit_card), 5 personal (email, phone)`; empty where there is none."""
    counts = {severity: row["personal_data"][severity] for severity in ("sensitive", "personal")}
    said = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
    kinds = ", ".join(f"{kind.replace('_', ' ')}: {count}" for kind, count in row["kinds"].items())
    return f"{said} ({kinds})" if said else "none"


def _lines(figures: Figures) -> list[tuple[str, str]]:
    return [
        (f"{one['stage']}: {row['model']}, {_named(row)}", f"exact {row['exact']:.3f}{interval(row['exact_ci95'])}")
        for one in figures[SUMMARY]
        for row in one["rows"]
    ]


def _named(row: Figures) -> str:
    return " ".join(part for part in (row["source"], row["group"]) if part)


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    return [
        SeedFigure(
            f"{name}: {row['model']}, {_named(row)}, exact",
            "percent",
            name,
            ("stages", name, "final", "rows", place, "exact"),
        )  # fmt: skip
        for name, stage in figures["stages"].items()
        if stage["kind"] == KIND
        for place, row in enumerate(stage["final"].get("rows") or [])
    ]


def _card(figures: Figures) -> list[str]:
    lines = []
    for one in figures[SUMMARY]:
        rows = [
            [
                row["model"], row["source"], GROUPS[row["group"]], f"{row['documents']:,}",
                *(f"{percent(row[key])} {as_interval(row[f'{key}_ci95'], True)}" for key in ("exact", "approximate")),
                _personal(row),
            ]
            for row in one["rows"]
        ]  # fmt: skip
        lines += [
            f"## Memorization ({one['stage']})",
            "",
            f"Shown the first {one['prompt_tokens']} tokens of a document: is its greedy continuation the next "
            f"{one['continuation_tokens']} (exact), or within {percent(one['distance'], 0)} edits (approximate)?",
            "",
            *table(_HEAD, rows),
            "",
        ]
    return lines


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-2",
    sections=(Section(KIND, "Memorization", Path(__file__).with_name("memorization.html.j2"), _section),),
    lines=_lines,
    over_seeds=_over_seeds,
    card=_card,
)
