"""What a filtering stage adds to summary and report.

Looked at in `final.json`, all optional: `rows_in`, `rows_out`, `bad_rows` and `filters`, see `run`.

Added to the summary: `data_filtering`, a list of `{stage, rows_in, rows_out, bad_rows, filters}` in the workflow's
order.
"""

from pathlib import Path
from typing import Any

from pipelines.report.card import table
from pipelines.report.format import number, percent
from pipelines.report.parts import Figures, KindReport, Section
from pipelines.report.records import RunRecord, is_finite_number

KIND = "data_filtering"
_FILTER = ("name", "seen", "dropped", "changed", "reasons", "examples")


def _summarize(run: RunRecord) -> Figures:
    found = []
    for one in run.of_kind(KIND):
        filters = one.final.get("filters")
        known = isinstance(filters, list) and all(isinstance(row, dict) and set(_FILTER) <= set(row) for row in filters)
        if known and is_finite_number(one.final.get("rows_in")):
            counts = {name: one.final.get(name) for name in ("rows_in", "rows_out", "bad_rows")}
            found.append({"stage": one.name, **counts, "filters": filters})
    return {KIND: found}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    found = figures[KIND]
    return {"stages": found, "share": _share, "counted": _counted, "benchmarks": _benchmarks} if found else None


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else ""


def _counted(row: dict[str, Any]) -> str:
    """Why a filter dropped rows, and what it counted beside: `personal 12; found email 10, phone 2`."""
    parts = [_counts(row["reasons"])]
    parts += [f"{name} {_counts(row[name])}" for name in ("found", "languages") if row.get(name)]
    return "; ".join(filter(None, parts))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number(count)}" for name, count in counts.items())


def _benchmarks(filters: list[dict[str, Any]]) -> dict[str, Any]:
    """Benchmark → its figures, of those that rows were compared with."""
    return {name: row for one in filters for name, row in (one.get("benchmarks") or {}).items()}


def _lines(figures: Figures) -> list[tuple[str, str]]:
    lines = []
    for one in figures[KIND]:
        dropped = ", ".join(f"{number(row['dropped'])} by {row['name']}" for row in one["filters"] if row["dropped"])
        text = f"{number(one['rows_out'])} of {number(one['rows_in'])} rows kept"
        lines.append((one["stage"], f"{text}; dropped {dropped}" if dropped else text))
    return lines


def _card(figures: Figures) -> list[str]:
    lines = []
    for one in figures[KIND]:
        lines += [
            f"## Data filtering ({one['stage']})",
            "",
            f"{number(one['rows_out'])} of {number(one['rows_in'])} rows kept.",
            "",
            *table(
                ["filter", "rows seen", "dropped", "changed", "reasons"],
                [
                    [row["name"], *(number(row[key]) for key in ("seen", "dropped", "changed")), _counted(row)]
                    for row in one["filters"]
                ],
            ),
            "",
        ]
        met = _benchmarks(one["filters"])
        if met:
            columns = ("rows", "looked_for", "met", "in_rows")
            rows = [[name, *(number(row[key]) for key in columns)] for name, row in met.items()]
            lines += [*table(["test rows of", "there are", "looked for", "met in the data", "in rows"], rows), ""]
    return lines


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-5",
    sections=(Section(KIND, "Data filtering", Path(__file__).with_name("data_filtering.html.j2"), _section),),
    lines=_lines,
    card=_card,
)
