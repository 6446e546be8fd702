"""What a mixture of sources adds to summary and report, in pretraining and in instruction tuning alike.

Looked at in `final.json`, all optional: `mixture`, see `pipelines.training.mixture.Mixture.seen`, and
`eval_loss_by_source`.

Added to the summary: `mixtures`, a list of `{stage, phases, eval_loss}` in the workflow's order.
"""

from pathlib import Path
from typing import Any

from pipelines.report.parts import Figures, KindReport, Section
from pipelines.report.records import RunRecord

KIND = "pretraining"
SUMMARY = "mixtures"


def _summarize(run: RunRecord) -> Figures:
    found = [
        {
            "stage": one.name,
            "phases": one.final["mixture"],
            "eval_loss": one.final.get("eval_loss_by_source") or {},
        }
        for one in run.stages
        if isinstance(one.final.get("mixture"), list)
    ]
    return {SUMMARY: found}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    found = figures[SUMMARY]
    return {"mixtures": [{**one, "totals": _totals(one["phases"])} for one in found]} if found else None


def _totals(phases: list[Figures]) -> dict[str, Figures]:
    """Rows, tokens and epochs of each source over all phases."""
    totals: dict[str, Figures] = {}
    for phase in phases:
        for source in phase["sources"]:
            total = totals.setdefault(source["name"], {"rows": 0, "tokens": 0, "epochs": 0.0})
            for key in total:
                total[key] += source[key]
    return totals


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    sections=(Section("mixture", "Data mixture", Path(__file__).with_name("mixture.html.j2"), _section),),
)
