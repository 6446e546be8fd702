"""Figures of a reward model: plain data in, inline SVG out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipelines.report import format as report_format
from pipelines.report import svg
from pipelines.report.figures import PANEL, identifier, interval_point, share_axis
from pipelines.report.records import is_finite_number
from pipelines.report.svg import BAD, GOOD, INK, MUTED, SERIES


def reward_model_accuracy(figures: dict[str, Any], name: str) -> str | None:
    """Held-out accuracy with its interval, beside chance and the ceiling; None without an accuracy.

    Args:
        figures: of the reward model. name: of its stage.
    """
    accuracy, bounds, ceiling = figures.get("accuracy"), figures.get("accuracy_ci95"), figures.get("ceiling")
    if not is_finite_number(accuracy):
        return None
    with svg.settings():
        figure, axis = svg.new_figure(PANEL[0], 1.75)
        share_axis(axis, "frame-accuracy")
        interval_point(axis, accuracy, bounds, 0, SERIES[0], "accuracy")
        axis.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        # Beside each other where the ceiling is so low that the two labels would overlap.
        is_near = is_finite_number(ceiling) and abs(ceiling - 0.5) < 0.2
        marks = [("chance", 0.5, MUTED, "right")]
        if is_finite_number(ceiling):
            axis.axvline(ceiling, color=GOOD, linewidth=2, gid="ceiling")
            marks.append((f"ceiling {report_format.percent(ceiling)}", ceiling, GOOD, "left"))
        for words, place, color, side in marks:
            side = side if is_near else "center"
            axis.annotate(words, (place, 0.62), ha=side, color=color, xytext=(0, 2), textcoords="offset points")
        leftmost = min([accuracy, *(bound for bound in bounds or [] if is_finite_number(bound))])
        axis.annotate(
            report_format.percent(accuracy),
            (leftmost, 0),
            ha="right",
            va="center",
            xytext=(-8, 0),
            textcoords="offset points",
        )
        axis.set_ylim(-0.75, 0.62)
        axis.set_yticks([])
        axis.set_xlabel("held-out pairs ranked as the rater did")
        return svg.to_svg(figure, f"accuracy-{identifier(name)}", f"Accuracy of {name}, chance and ceiling")


def margin_calibration(buckets: Sequence[dict[str, Any]], name: str) -> str | None:
    """Accuracy by margin against what the margin claims, σ(margin); None without buckets.

    Args:
        buckets: `accuracy_by_margin` of the stage: `{"margin_from", "margin_to", "accuracy", "accuracy_ci95",
            "pairs"}`.
        name: of the stage.
    """
    if not buckets:
        return None
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        highest = max(bucket["margin_to"] for bucket in buckets)
        margins = np.linspace(0, highest, 100)
        axis.plot(
            margins,
            1 / (1 + np.exp(-margins)),
            color=MUTED,
            linewidth=1.2,
            linestyle=(0, (3, 2)),
            label="claimed: σ(margin)",
        )
        for index, bucket in enumerate(buckets):
            middle = (bucket["margin_from"] + bucket["margin_to"]) / 2
            axis.plot(
                [bucket["margin_from"], bucket["margin_to"]],
                [bucket["accuracy"]] * 2,
                color=SERIES[0],
                linewidth=1.4,
                alpha=0.5,
            )
            bounds = bucket.get("accuracy_ci95")
            if bounds:
                axis.plot([middle] * 2, bounds, color=SERIES[0], linewidth=1.4, gid=f"interval-margin-{index}")
            axis.plot(
                middle,
                bucket["accuracy"],
                "o",
                color=SERIES[0],
                markersize=6,
                gid=f"margin-{index}",
                label="measured" if index == 0 else None,
            )
        lowest = [min([bucket["accuracy"], *(bucket.get("accuracy_ci95") or [])]) for bucket in buckets]
        axis.set_ylim(min(0.4, *(low - 0.05 for low in lowest)), 1.03)
        axis.set_xlim(left=0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlabel("margin |r chosen − r rejected|")
        axis.set_ylabel("pairs ranked rightly")
        axis.legend(loc="lower right")
        return svg.to_svg(
            figure, f"calibration-{identifier(name)}", "Accuracy by margin, and the accuracy that the margin claims"
        )


def margin_histogram(histogram: dict[str, Any] | None, name: str) -> str | None:
    """How many pairs have which margin, wrong ones in another colour; None without a histogram.

    Args:
        histogram: `{"edges": [n + 1], "counts": [n]}` of r_chosen - r_rejected. name: of the stage.
    """
    if not histogram or not histogram.get("counts"):
        return None
    edges, counts = histogram["edges"], histogram["counts"]
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
            axis.bar(
                left,
                count,
                width=(right - left) * 0.94,
                align="edge",
                color=GOOD if left + right > 0 else BAD,
                linewidth=0,
            )
        axis.axvline(0, color=INK, linewidth=1)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.set_xlabel("r chosen − r rejected (left of zero: ranked wrongly)")
        axis.set_ylabel("held-out pairs")
        return svg.to_svg(figure, f"margins-{identifier(name)}", "Histogram of the margins of held-out pairs")
