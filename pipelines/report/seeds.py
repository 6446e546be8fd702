"""The table over seeds: mean and range of what each seed measured, and how many of them agree in sign."""

import math
from collections.abc import Sequence

from pipelines.measures.statistics import sign_test
from pipelines.report.parts import Figures, KindReport, SeedFigure, look_up
from pipelines.report.records import RunRecord, is_finite_number


def over_seeds(run: RunRecord, summaries: Sequence[Figures], reports: Sequence[KindReport]) -> Figures:
    """What a run with seeds adds to its summary.

    Args:
        run: the run. summaries: of its `parts`, in order.
        reports: what the kinds add; the last kind's rows stand first.

    Returns:
        `values`, the seeds; `stages`, those that run once for each; `parts`, seed to `{seconds, peak_memory_gib,
        peak_memory_of}` of these stages; `table`, a list of rows as `_row` describes them.
    """
    wanted: dict[str, SeedFigure] = {}
    for summary in summaries:
        for report in reversed(reports):
            for figure in report.over_seeds(summary):
                if figure.stage in run.repeated:
                    wanted.setdefault(figure.label, figure)
    seeds = [str(part.seed) for part in run.parts]
    rows = (_row(figure, dict(zip(seeds, summaries, strict=True))) for figure in wanted.values())
    return {
        "values": run.seed_values,
        "stages": run.repeated,
        "parts": {str(part.seed): _usage(part) for part in run.parts},
        "table": [row for row in rows if row["n"]],
    }


def _usage(part: RunRecord) -> Figures:
    own = [stage for stage in part.stages if stage.name in part.repeated]
    fullest = max(own, key=lambda stage: stage.peak_memory_gib or 0, default=None)
    return {
        "seconds": math.fsum(stage.seconds or 0 for stage in own),
        "peak_memory_gib": None if fullest is None else fullest.peak_memory_gib or 0,
        "peak_memory_of": None if fullest is None else fullest.peak_memory_of,
    }


def _row(figure: SeedFigure, summaries: dict[str, Figures]) -> Figures:
    """`label`, `style`, `is_detail`; `values`, the figure by seed, where it has one; their `mean`, `min`, `max` and
    number `n`. Of a comparison also `middle`, the value at which both are level; `above` and `below`, how many seeds
    lie on either side of it; `sign_test`, the one-sided p-value of the side with more."""
    found = {seed: _value(figure, summary) for seed, summary in summaries.items()}
    values = {seed: value for seed, value in found.items() if value is not None}
    several = list(values.values())
    row: Figures = {
        "label": figure.label,
        "style": figure.style,
        "is_detail": figure.is_detail,
        "n": len(several),
        "mean": math.fsum(several) / len(several) if several else None,
        "min": min(several, default=None),
        "max": max(several, default=None),
        "values": values,
    }
    if figure.middle is not None:
        above = sum(value > figure.middle for value in several)
        below = sum(value < figure.middle for value in several)
        test = sign_test(max(above, below), min(above, below))
        row |= {"middle": figure.middle, "above": above, "below": below, "sign_test": test}
    return row


def _value(figure: SeedFigure, summary: Figures) -> float | None:
    value, less = look_up(summary, figure.path), look_up(summary, figure.minus or ()) if figure.minus else 0.0
    return value - less if is_finite_number(value) and is_finite_number(less) else None
