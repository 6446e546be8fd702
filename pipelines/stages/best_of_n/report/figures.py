"""Figures of best of n: plain data in, inline SVG out."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pipelines.report import svg
from pipelines.report.figures import PANEL, legend_below, series_color
from pipelines.report.format import short_names
from pipelines.report.records import StageRecord, is_finite_number
from pipelines.report.svg import INK

PANELS = (("reward", "training reward: what chooses"), ("gold", "gold reward: what is wanted"))


def against_kl(
    curve: Sequence[dict[str, Any]], trained: Sequence[StageRecord], evaluated: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Reward and gold reward over the KL: of best of n, of policies in training, and gold of what an evaluation
    compared; a panel each, none without a curve.

    Args:
        curve: points as `curve_of` gives them.
        trained: stages with `eval_kl_sequence`, and `eval_reward` or `eval_gold`.
        evaluated: by name, policies with `kl_sequence` and `gold`.
    """
    panels = [(name, title) for name, title in PANELS if any(name in point for point in curve)]
    everyone = dict.fromkeys([*(stage.name for stage in trained), *evaluated])
    colors = {name: series_color(index) for index, name in enumerate(everyone)}
    drawings = []
    with svg.settings():
        for name, title in panels:
            figure, axis = svg.new_figure(PANEL[0], 3.4)
            _draw_curve(axis, curve, name)
            for stage in trained:
                _draw_training(axis, stage, name, colors[stage.name])
            if name == "gold":
                _draw_evaluated(axis, evaluated, colors)
            axis.set_title(title)
            axis.set_xlabel("KL to the starting model, nats a response")
            legend_below(figure, columns=2)
            drawings.append(svg.to_svg(figure, f"best-of-n-{name}", f"Best of n, training and evaluated, {name} by KL"))
    return drawings


def _draw_curve(axis: Axes, curve: Sequence[dict[str, Any]], name: str) -> None:
    points = [point for point in curve if name in point]
    along, means = [point["kl_bound"] for point in points], [point[name]["mean"] for point in points]
    axis.plot(along, means, color=INK, marker="s", markersize=4, label="best of n")
    for point, x in zip(points, along, strict=True):
        if point[name]["ci95"]:
            axis.vlines([x], *point[name]["ci95"], color=INK, linewidth=1.0)
    for point, x, y in zip(points, along, means, strict=True):
        axis.annotate(str(point["n"]), (x, y), xytext=(-5, 2), textcoords="offset points", ha="right")


def _draw_training(axis: Axes, stage: StageRecord, name: str, color: str) -> None:
    rows = [row for row in stage.metrics if is_finite_number(row.get(f"eval_{name}"))]
    rows.sort(key=lambda row: row["step"])
    along, means = ([row[key] for row in rows] for key in ("eval_kl_sequence", f"eval_{name}"))
    axis.plot(along, means, color=color, marker="o", markersize=3, linewidth=1.0, label=f"{stage.name}, in training")


def _draw_evaluated(axis: Axes, policies: Mapping[str, dict[str, Any]], colors: Mapping[str, str]) -> None:
    short = short_names(policies)
    for name, policy in policies.items():
        x, bounds = policy["kl_sequence"], policy["gold"].get("ci95")
        label = f"{short[name]}, evaluated"
        axis.plot(
            [x], [policy["gold"]["mean"]], color=colors[name], marker="D", markersize=5, linestyle="", label=label
        )
        if bounds:
            axis.vlines([x], *bounds, color=colors[name], linewidth=1.0)
