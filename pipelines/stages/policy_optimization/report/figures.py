"""Figures of policies in training: plain data in, inline SVG out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipelines.host.visible_text import visible
from pipelines.report import svg
from pipelines.report.figures import PANEL, draw_series, finish_steps, legend_below, series_color
from pipelines.report.records import StageRecord, is_finite_number
from pipelines.report.svg import INK, SERIES, identifier

REWARDS = (("eval_reward", "training reward: what RL maximises"), ("eval_gold", "gold reward: what is wanted"))
ALONG = (("step", "step"), ("eval_kl_sequence", "KL to the starting model, nats a response"))
"""Metric and what it is called."""


def policy_curve(stages: Sequence[StageRecord], metric: str, label: str, held_out: str | None = None) -> str | None:
    """One metric of the policy-optimization stages over their steps; None where none logged it.

    Args:
        stages: policy-optimization stages; each gets its own colour.
        metric: name in `metrics.jsonl`.
        label: of the vertical axis.
        held_out: name of the same metric on held-out prompts, drawn with points.
    """
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        drawn = False
        alone = len(stages) == 1
        for index, stage in enumerate(stages):
            color = series_color(index)
            drawn |= draw_series(
                axis,
                *stage.series(metric),
                color=color,
                label="sampled in training" if alone else stage.name,
                say_mean=alone,
            )
            steps, values = stage.series(held_out) if held_out else ([], [])
            if steps:
                drawn = True
                marked, name = (SERIES[1], "held-out prompts") if alone else (color, None)
                axis.plot(steps, values, color=marked, marker="o", markersize=4, linewidth=1.2, label=name, zorder=4)
        if not drawn:
            return None
        axis.set_title(label)
        finish_steps(axis)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend(loc="best")
        return svg.to_svg(figure, f"policy-{identifier(metric)}", f"{label} by step")


def overoptimization(stages: Sequence[StageRecord]) -> list[str]:
    """Training reward and below it gold reward, each over steps and beside it over the KL; a panel each, none without
    held-out rewards. Panels of one reward have one range of it, those over one quantity one range of that.

    Args:
        stages: policy-optimization stages with `eval_reward`, and `eval_gold` and `eval_kl_sequence` where they were
            measured.
    """
    stages = [stage for stage in stages if stage.series("eval_reward")[0]]
    if not stages:
        return []
    rewards = [reward for reward in REWARDS if any(stage.series(reward[0])[0] for stage in stages)]
    along = [one for one in ALONG if any(stage.series(one[0])[0] for stage in stages)]
    with svg.settings():
        panels = {(reward, one): svg.new_figure(PANEL[0], 2.5) for reward in rewards for one in along}
        for (reward, one), (_, axis) in panels.items():
            for index, stage in enumerate(stages):
                _draw_with_band(axis, stage, reward[0], one[0], series_color(index))
            axis.set_title(reward[1])
            axis.set_xlabel(one[1])
            axis.xaxis.set_major_locator(MaxNLocator(integer=one is ALONG[0], nbins=6))
            if len(stages) > 1:
                axis.legend(loc="best")
        for reward in rewards:
            _share([panels[reward, one][1] for one in along], "ylim")
        for one in along:
            _share([panels[reward, one][1] for reward in rewards], "xlim")
        return [
            svg.to_svg(
                figure, f"overoptimization-{identifier(reward[0], one[0])}", f"{reward[1]}; horizontally {one[1]}"
            )
            for (reward, one), (figure, _) in panels.items()
        ]


def gold_part_curves(stage: StageRecord) -> str | None:
    """The parts of the gold reward of one policy over its steps; None where they were not measured.

    Args:
        stage: a policy-optimization stage with `eval_gold/<part>`.
    """
    prefix = "eval_gold/"
    parts = list(
        dict.fromkeys(name.removeprefix(prefix) for row in stage.metrics for name in row if name.startswith(prefix))
    )
    if not parts:
        return None
    with svg.settings():
        figure, axis = svg.new_figure(*PANEL)
        for index, part in enumerate(parts):
            steps, values = stage.series(prefix + part)
            axis.plot(steps, values, color=series_color(index), marker="o", markersize=3.5, label=visible(part))
        axis.set_title(f"parts of the gold reward, {stage.name}")
        finish_steps(axis)
        legend_below(figure, columns=3)
        return svg.to_svg(
            figure, f"gold-part-curves-{identifier(stage.name)}", f"Parts of the gold reward of {stage.name} by step"
        )


def _share(axes: Sequence[Axes], limits: str) -> None:
    """Give axes one range, `xlim` or `ylim`, that holds all of theirs."""
    ends = [getattr(axis, f"get_{limits}")() for axis in axes]
    for axis in axes:
        axis.set(**{limits: (min(low for low, _ in ends), max(high for _, high in ends))})


def _draw_with_band(axis: Axes, stage: StageRecord, metric: str, against: str, color: str) -> None:
    names = (against, metric)
    rows = [row for row in stage.metrics if all(is_finite_number(row.get(name)) for name in names)]
    rows.sort(key=lambda row: row["step"])
    if not rows:
        return
    along, values = [row[against] for row in rows], [row[metric] for row in rows]
    axis.plot(along, values, color=color, marker="o", markersize=4, label=stage.name)
    low, high = ([row.get(f"{metric}_ci95_{end}") for row in rows] for end in ("low", "high"))
    if all(map(is_finite_number, low)) and all(map(is_finite_number, high)):
        if against == "step":
            axis.fill_between(along, low, high, color=color, alpha=0.16, linewidth=0)
        else:
            # Along the KL the points need not be in order, and a band would fold over itself.
            axis.vlines(along, low, high, color=color, alpha=0.45, linewidth=1.2)
    peak = len(values) - 1 - int(np.argmax(values[::-1]))
    if metric == "eval_gold" and peak < len(values) - 1:
        axis.plot(
            along[peak],
            values[peak],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.2,
        )
        axis.annotate(
            "peak", (along[peak], values[peak]), xytext=(0, 9), textcoords="offset points", ha="center", color=INK
        )
        axis.margins(y=0.18)
