"""What the report's figures share, and the loss curves: plain data in, inline SVG out.

Each function of a figure draws one picture. Whatever carries a figure of `summary.json` has a `gid`, so that a test can
measure it in the SVG: frames are called `frame-...` and cover the value range of their axis.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipelines.report import svg
from pipelines.report.records import StageRecord, is_finite_number
from pipelines.report.svg import SERIES, identifier

PANEL = (4.6, 2.6)
"""Inches: as wide as a phone, so that letters are there as large as they are written."""

SMOOTH_ABOVE = 60


def loss_curve(stage: StageRecord) -> str | None:
    """Training and held-out loss of a stage over its updates; None where it logged no loss."""
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        drawn = draw_series(axis, *stage.series("loss"), color=SERIES[0], label="training")
        steps, values = stage.series("eval_loss")
        if steps:
            axis.plot(steps, values, color=SERIES[1], marker="o", markersize=4, label="held out", zorder=4)
        if not drawn and not steps:
            return None
        axis.set_ylabel("loss (nats)")
        axis.set_title(stage.name)
        finish_steps(axis)
        axis.legend(loc="upper right")
        return svg.to_svg(
            figure, f"loss-{identifier(stage.name)}", f"Training and held-out loss of {stage.name} by update"
        )


def legend_below(figure: Figure, columns: int) -> None:
    """The legend under a panel, whose width it would take beside it."""
    figure.legend(loc="outside lower left", ncols=columns)


def series_color(index: int) -> str:
    """The colour of the n-th curve."""
    return SERIES[index % len(SERIES)]


def draw_series(
    axis: Axes, steps: list[float], values: list[float], color: str, label: str, say_mean: bool = True
) -> bool:
    """Draw a curve; a long one faint, with its rolling mean on top. False where there is nothing to draw."""
    if not steps:
        return False
    if len(steps) <= SMOOTH_ABOVE:
        axis.plot(steps, values, color=color, label=label, marker="o" if len(steps) == 1 else None)
        return True
    window = max(len(values) // 30, 3)
    padded = np.pad(np.asarray(values), (window // 2, window - 1 - window // 2), mode="edge")
    axis.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
    axis.plot(
        steps,
        np.convolve(padded, np.ones(window) / window, mode="valid"),
        color=color,
        label=f"{label}, mean of {window}" if say_mean else label,
    )
    return True


def finish_steps(axis: Axes) -> None:
    """Labels of an axis of steps."""
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axis.ticklabel_format(axis="y", useOffset=False)


def share_axis(axis: Axes, frame: str) -> None:
    """A horizontal axis of shares from 0 to 1, its frame named for tests."""
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.patch.set_gid(frame)
    axis.spines["left"].set_visible(False)


def interval_point(axis: Axes, value: float, bounds: Sequence[float] | None, row: float, color: str, name: str) -> None:
    """A figure as a point with its interval as a bar, both named for tests."""
    if bounds and all(map(is_finite_number, bounds)):
        axis.plot(list(bounds), [row, row], color=color, linewidth=3.2, alpha=0.45, gid=f"interval-{name}")
    axis.plot([value], [row], marker="o", markersize=7, color=color, linestyle="none", gid=f"point-{name}", zorder=4)
