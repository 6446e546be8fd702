"""The few figures that a finished run prints, as aligned lines; where nothing was compared, what was learned."""

from collections.abc import Sequence
from typing import Any

from pipelines.host.progress import duration
from pipelines.report.format import of_device
from pipelines.report.parts import Figures, KindReport
from pipelines.report.records import is_finite_number
from pipelines.report.words import agreement, compares, loss_words, over_seeds


def lines(summary: Figures, reports: Sequence[KindReport]) -> list[str]:
    """A short table from a run's summary.

    Args:
        summary: as in `summary.json`; figures that are missing or null are left out. reports: what the kinds add, in
            order.

    Returns:
        Lines of "name  value", aligned.
    """
    seeds = summary.get("seeds")
    stages = summary.get("stages", {}).items()
    rows = [(name, _stage(figures)) for name, figures in stages if not seeds or name not in seeds["stages"]]
    if seeds:
        rows += [(f"seed {seed}", _stage(figures)) for seed, figures in seeds["parts"].items()]
        shown = [row for row in seeds["table"] if not row["is_detail"]]
        rows += [(row["label"], f"{over_seeds(row)}, {_seeds(row)}") for row in shown]
    else:
        rows += [row for report in reports for row in report.lines(summary)]
        if not compares(summary, reports):
            rows += [(f"loss of {name}", words) for name, figures in stages if (words := loss_words(figures))]
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in rows]


def _seeds(row: Figures) -> str:
    if "middle" in row:
        return agreement(row)
    return f"{row['n']} {'seed' if row['n'] == 1 else 'seeds'}"


def _stage(figures: dict[str, Any]) -> str:
    parts = []
    if is_finite_number(figures.get("seconds")):
        parts.append(duration(figures["seconds"]))
    if is_finite_number(figures.get("peak_memory_gib")):
        parts.append(f"{figures['peak_memory_gib']:.2f} GiB{of_device(figures.get('peak_memory_of'))}")
    return ", ".join(parts) or "finished"


def interval(ends: Any) -> str:
    """An interval behind its figure, ` [0.806, 0.867]`; empty where there is none."""
    if isinstance(ends, list) and len(ends) == 2 and all(is_finite_number(end) for end in ends):
        return f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return ""
