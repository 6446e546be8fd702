"""Figures of best of n: plain data in, inline SVG out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.report import svg
from pipelines.report.figures import series_color
from pipelines.report.records import StageRecord, is_finite_number
from pipelines.report.svg import INK

PANELS = (("reward", "training reward: what chooses"), ("gold", "gold reward: what is wanted"))


def against_kl(curve: Sequence[dict[str, Any]], trained: Sequence[StageRecord]) -> str | None:
    """Reward and gold reward over the KL, of best of n and of policies in training; None without a curve.

    Args:
        curve: points as `curve_of` gives them.
        trained: stages with `eval_kl_sequence`, and `eval_reward` or `eval_gold`.
    """
    panels = [(name, title) for name, title in PANELS if any(name in point for point in curve)]
    if not panels:
        return None
    with svg.settings():
        figure, axes = svg.new_figure(4.6 * len(panels), 2.7, len(panels), 1)
        for axis, (name, title) in zip(np.ravel(axes), panels, strict=True):
            points = [point for point in curve if name in point]
            along, means = [point["kl_bound"] for point in points], [point[name]["mean"] for point in points]
            axis.plot(along, means, color=INK, marker="s", markersize=4, label="best of n")
            axis.vlines(along, *zip(*(point[name]["ci95"] for point in points), strict=True), color=INK, linewidth=1.0)
            for point, x, y in zip(points, along, means, strict=True):
                axis.annotate(str(point["n"]), (x, y), xytext=(-5, 2), textcoords="offset points", ha="right")
            for index, stage in enumerate(trained):
                rows = [row for row in stage.metrics if is_finite_number(row.get(f"eval_{name}"))]
                rows.sort(key=lambda row: row["step"])
                along, means = ([row[key] for row in rows] for key in ("eval_kl_sequence", f"eval_{name}"))
                axis.plot(along, means, color=series_color(index), marker="o", markersize=4, label=stage.name)
            axis.set_title(title)
            axis.set_xlabel("KL to the starting model, nats a response")
        np.ravel(axes)[-1].legend(loc="best")
        return svg.to_svg(figure, "best-of-n", "Best of n and training by KL")
