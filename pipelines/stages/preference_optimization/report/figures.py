"""Figures of policies that learn from preferences directly: plain data in, inline SVG out."""

from collections.abc import Sequence

from matplotlib.ticker import PercentFormatter

from pipelines.report import svg
from pipelines.report.figures import PANEL, draw_series, finish_steps, series_color
from pipelines.report.records import StageRecord
from pipelines.report.svg import BAD, GOOD, MUTED, identifier


def rewards_of_both_sides(stage: StageRecord) -> str | None:
    """What a policy says that chosen and rejected answers are worth, over its updates; None where it logged neither."""
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        drawn = False
        for side, color in (("chosen", GOOD), ("rejected", BAD)):
            drawn |= draw_series(axis, *stage.series(f"rewards/{side}"), color=color, label=side)
        if not drawn:
            return None
        axis.set_ylabel("implicit reward")
        axis.set_title(stage.name)
        finish_steps(axis)
        axis.legend(loc="best")
        title = f"Implicit rewards of chosen and rejected answers under {stage.name} by update"
        return svg.to_svg(figure, f"sides-{identifier(stage.name)}", title)


def held_out_accuracy(stages: Sequence[StageRecord]) -> str | None:
    """How often each policy prefers the chosen one of two held-out answers, over its updates; None without such."""
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        drawn = False
        for index, stage in enumerate(stages):
            steps, values = stage.series("eval_rewards/accuracies")
            if steps:
                drawn = True
                axis.plot(steps, values, color=series_color(index), marker="o", markersize=4, label=stage.name)
        if not drawn:
            return None
        axis.axhline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_title("held-out pairs preferred as the rater did")
        axis.set_xlabel("step")
        if len(stages) > 1:
            axis.legend(loc="best")
        return svg.to_svg(figure, "sides-accuracy", "Held-out accuracy by update")
