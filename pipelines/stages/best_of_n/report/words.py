"""What the report says about best of n, in words."""

from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import number
from pipelines.report.records import StageRecord, is_finite_number


def comparison_words(curve: list[dict[str, Any]], stage: StageRecord) -> str | None:
    """Where a trained policy ended beside the best of n; None where either has no gold reward."""
    best = max((point for point in curve if "gold" in point), key=lambda point: point["n"], default=None)
    rows = [row for row in stage.metrics if is_finite_number(row.get("eval_gold"))]
    if best is None or not rows:
        return None
    last = max(rows, key=lambda row: row["step"])
    bounds = report_format.interval(best["gold"]["ci95"])
    return (
        f"Best of {best['n']} reaches gold {number(best['gold']['mean'])} {bounds} at no more than "
        f"{number(best['kl_bound'])} nats a response and without training; {stage.name} {number(last['eval_gold'])} at "
        f"{number(last['eval_kl_sequence'])} nats."
    )
