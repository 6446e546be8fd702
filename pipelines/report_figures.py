"""The report's figures: plain data in, inline SVG out.

Each function draws one picture. Whatever carries a figure of `summary.json` has a `gid`, so that a test can measure it in the SVG:
frames are called `frame-...` and cover the value range of their axis.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipelines import report_format, report_svg
from pipelines.report_svg import BAD, GOOD, GRID, INK, MUTED, SERIES, TIE, identifier
from pipelines.run_reader import StageRecord, is_finite_number

PANEL = (5.2, 2.75)
SMOOTH_ABOVE = 60


def loss_curve(stage: StageRecord) -> str | None:
    """Training and held-out loss of a stage over its updates; None where it logged no loss."""
    with report_svg.settings():
        figure, (axis,) = report_svg.new_figure(*PANEL)
        drawn = _draw_series(axis, *stage.series("loss"), color=SERIES[0], label="training")
        steps, values = stage.series("eval_loss")
        if steps:
            axis.plot(steps, values, color=SERIES[1], marker="o", markersize=4, label="held out", zorder=4)
        if not drawn and not steps:
            return None
        axis.set_ylabel("loss (nats)")
        axis.set_title(stage.name)
        _finish_steps(axis)
        axis.legend(loc="upper right")
        return report_svg.to_svg(figure, f"loss-{identifier(stage.name)}", f"Training and held-out loss of {stage.name} by update")


def reward_model_accuracy(figures: dict[str, Any]) -> str | None:
    """Held-out accuracy with its interval, beside chance and the ceiling; None without an accuracy.

    Args:
        figures: `reward_model` of the summary.
    """
    accuracy, bounds, ceiling = figures.get("accuracy"), figures.get("accuracy_ci95"), figures.get("ceiling")
    if not is_finite_number(accuracy):
        return None
    with report_svg.settings():
        figure, (axis,) = report_svg.new_figure(PANEL[0], 1.75)
        _share_axis(axis, "frame-accuracy")
        _interval_point(axis, accuracy, bounds, 0, SERIES[0], "accuracy")
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
        axis.annotate(report_format.percent(accuracy), (leftmost, 0), ha="right", va="center", xytext=(-8, 0), textcoords="offset points")
        axis.set_ylim(-0.75, 0.62)
        axis.set_yticks([])
        axis.set_xlabel("held-out pairs ranked as the rater did")
        return report_svg.to_svg(figure, "reward-model-accuracy", "Accuracy of the reward model, chance and ceiling")


def margin_calibration(buckets: Sequence[dict[str, Any]]) -> str | None:
    """Accuracy by margin against what the margin claims, σ(margin); None without buckets.

    Args:
        buckets: `accuracy_by_margin` of the stage: `{"margin_from", "margin_to", "accuracy", "pairs"}`.
    """
    if not buckets:
        return None
    with report_svg.settings():
        figure, (axis,) = report_svg.new_figure(*PANEL)
        highest = max(bucket["margin_to"] for bucket in buckets)
        margins = np.linspace(0, highest, 100)
        axis.plot(margins, 1 / (1 + np.exp(-margins)), color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)), label="claimed: σ(margin)")
        for index, bucket in enumerate(buckets):
            middle = (bucket["margin_from"] + bucket["margin_to"]) / 2
            axis.plot([bucket["margin_from"], bucket["margin_to"]], [bucket["accuracy"]] * 2, color=SERIES[0], linewidth=1.4, alpha=0.5)
            axis.plot(
                middle,
                bucket["accuracy"],
                "o",
                color=SERIES[0],
                markersize=6,
                gid=f"margin-{index}",
                label="measured" if index == 0 else None,
            )
        axis.set_ylim(min(0.4, *(bucket["accuracy"] - 0.05 for bucket in buckets)), 1.03)
        axis.set_xlim(left=0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlabel("margin |r chosen − r rejected|")
        axis.set_ylabel("pairs ranked rightly")
        axis.legend(loc="lower right")
        return report_svg.to_svg(figure, "margin-calibration", "Accuracy by margin, and the accuracy that the margin claims")


def margin_histogram(histogram: dict[str, Any] | None) -> str | None:
    """How many pairs have which margin, wrong ones in another colour; None without a histogram.

    Args:
        histogram: `{"edges": [n + 1], "counts": [n]}` of r_chosen - r_rejected.
    """
    if not histogram or not histogram.get("counts"):
        return None
    edges, counts = histogram["edges"], histogram["counts"]
    with report_svg.settings():
        figure, (axis,) = report_svg.new_figure(*PANEL)
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
            axis.bar(left, count, width=(right - left) * 0.94, align="edge", color=GOOD if left + right > 0 else BAD, linewidth=0)
        axis.axvline(0, color=INK, linewidth=1)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.set_xlabel("r chosen − r rejected (left of zero: ranked wrongly)")
        axis.set_ylabel("held-out pairs")
        return report_svg.to_svg(figure, "margin-histogram", "Histogram of the margins of held-out pairs")


def policy_curve(stages: Sequence[StageRecord], metric: str, label: str, held_out: str | None = None) -> str | None:
    """One metric of the policy-optimization stages over their steps; None where none logged it.

    Args:
        stages: policy-optimization stages; each gets its own colour.
        metric: name in `metrics.jsonl`.
        label: of the vertical axis.
        held_out: name of the same metric on held-out prompts, drawn with points.
    """
    with report_svg.settings():
        figure, (axis,) = report_svg.new_figure(*PANEL)
        drawn = False
        alone = len(stages) == 1
        for index, stage in enumerate(stages):
            color = _series_color(index)
            drawn |= _draw_series(
                axis, *stage.series(metric), color=color, label="sampled in training" if alone else stage.name, say_mean=alone
            )
            steps, values = stage.series(held_out) if held_out else ([], [])
            if steps:
                drawn = True
                marked, name = (SERIES[1], "held-out prompts") if alone else (color, None)
                axis.plot(steps, values, color=marked, marker="o", markersize=4, linewidth=1.2, label=name, zorder=4)
        if not drawn:
            return None
        axis.set_title(label)
        _finish_steps(axis)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend(loc="best")
        return report_svg.to_svg(figure, f"policy-{identifier(metric)}", f"{label} by step")


def overoptimization(stages: Sequence[StageRecord]) -> str | None:
    """Training reward above, gold reward below, over steps at the left and over the KL at the right; None without held-out rewards.

    Args:
        stages: policy-optimization stages with `eval_reward`, and `eval_gold` and `eval_kl_sequence` where they were measured.
    """
    stages = [stage for stage in stages if stage.series("eval_reward")[0]]
    if not stages:
        return None
    has_gold = any(stage.series("eval_gold")[0] for stage in stages)
    has_kl = any(stage.series("eval_kl_sequence")[0] for stage in stages)
    rows, columns = 1 + has_gold, 1 + has_kl
    with report_svg.settings():
        figure, axes = report_svg.new_figure(5.2 * columns, 0.4 + 2.3 * rows, columns, rows, sharex="col", sharey="row")
        grid = np.array(axes).reshape(rows, columns)
        for index, stage in enumerate(stages):
            for row, metric in enumerate(("eval_reward", "eval_gold")[:rows]):
                for column, against in enumerate(("step", "eval_kl_sequence")[:columns]):
                    _draw_with_band(grid[row, column], stage, metric, against, _series_color(index))
        grid[0, 0].set_title("training reward: what RL maximises")
        grid[0, 0].set_ylabel("reward")
        if has_gold:
            grid[1, 0].set_title("gold reward: what is wanted")
            grid[1, 0].set_ylabel("gold reward")
        grid[-1, 0].set_xlabel("step")
        grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        if has_kl:
            grid[-1, 1].set_xlabel("KL to the starting model, nats a response")
            grid[-1, 1].xaxis.set_major_locator(MaxNLocator(nbins=6))
        if len(stages) > 1:
            grid[0, 0].legend(loc="best")
        return report_svg.to_svg(figure, "overoptimization", "Training and gold reward by step and by KL")


def gold_part_curves(stage: StageRecord) -> str | None:
    """The parts of the gold reward of one policy over its steps; None where they were not measured.

    Args:
        stage: a policy-optimization stage with `eval_gold/<part>`.
    """
    prefix = "eval_gold/"
    parts = list(dict.fromkeys(name.removeprefix(prefix) for row in stage.metrics for name in row if name.startswith(prefix)))
    if not parts:
        return None
    with report_svg.settings():
        figure, (axis,) = report_svg.new_figure(*PANEL)
        for index, part in enumerate(parts):
            steps, values = stage.series(prefix + part)
            axis.plot(steps, values, color=_series_color(index), marker="o", markersize=3.5, label=part)
        axis.set_title(f"parts of the gold reward, {stage.name}")
        _finish_steps(axis)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return report_svg.to_svg(figure, f"gold-part-curves-{identifier(stage.name)}", f"Parts of the gold reward of {stage.name} by step")


def win_rates(pairs: Sequence[dict[str, Any]]) -> str | None:
    """Win rate with its interval and the shares of wins, ties and losses, a row a pair; None without pairs.

    Args:
        pairs: `evaluation.pairs` of the summary.
    """
    rows = [pair for pair in pairs if is_finite_number(pair.get("win_rate"))]
    if not rows:
        return None
    with report_svg.settings():
        figure, (rates, shares) = report_svg.new_figure(10.4, 0.95 + 0.52 * len(rows), 2, sharey=True)
        _share_axis(rates, "frame-win-rate")
        _share_axis(shares, "frame-shares")
        rates.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for row, pair in enumerate(rows):
            low = (pair.get("win_rate_ci95") or [None])[0]
            high = (pair.get("win_rate_ci95") or [None])[-1]
            color = GOOD if is_finite_number(low) and low > 0.5 else BAD if is_finite_number(high) and high < 0.5 else MUTED
            name = identifier(str(pair["policy"]), str(pair["baseline"]))
            _interval_point(rates, pair["win_rate"], pair.get("win_rate_ci95"), row, color, f"win-rate-{name}")
            _stacked_shares(shares, pair, row, name)
        short = report_format.short_names(str(pair[side]) for pair in rows for side in ("baseline", "policy"))
        rates.set_yticks(range(len(rows)), [f"{short[str(pair['policy'])]} vs {short[str(pair['baseline'])]}" for pair in rows])
        rates.tick_params(axis="y", labelcolor=INK)
        rates.set_ylim(len(rows) - 0.45, -0.55)
        rates.set_title("win rate (wins + half of the ties)")
        shares.set_title("share of prompts: won, tied, lost")
        for axis in (rates, shares):
            axis.grid(axis="y", visible=False)
        return report_svg.to_svg(figure, "win-rates", "Win rates of the compared policies with 95 % intervals")


def gold_parts(parts: dict[str, dict[str, Any]], totals: dict[str, Any]) -> str | None:
    """The gold reward and its parts for each policy, with intervals; None without parts.

    Args:
        parts: `evaluation.gold_parts` of the summary, policy to part to `{"mean", "ci95"}`.
        totals: policy to `{"mean", "ci95"}` of the whole gold reward.
    """
    names = list(dict.fromkeys(part for policy in parts.values() for part in policy))
    if not names:
        return None
    policies = list(parts)
    labels = list(report_format.short_names(policies).values())
    with report_svg.settings():
        figure, axes = report_svg.new_figure(10.4, 1.0 + 0.2 * max(len(policies), 2) * 2, min(len(names) + 1, 5), -(-(len(names) + 1) // 5))
        for axis in axes[len(names) + 1 :]:
            axis.set_visible(False)
        shown = {"gold": totals, **{part: {policy: parts[policy].get(part) for policy in policies} for part in names}}
        limits = _equal_spans([[figures for figures in by_policy.values() if figures] for by_policy in shown.values()])
        for axis, (part, by_policy), limit in zip(axes, shown.items(), limits, strict=False):
            for row, policy in enumerate(policies):
                figures = by_policy.get(policy)
                if figures and is_finite_number(figures.get("mean")):
                    _interval_point(axis, figures["mean"], figures.get("ci95"), row, _series_color(row), f"gold-{identifier(policy, part)}")
            axis.set_title("gold, whole" if part == "gold" else part)
            axis.set_xlim(limit)
            axis.set_ylim(len(policies) - 0.4, -0.6)
            axis.set_yticks(range(len(policies)), labels if axis in axes[::5] else [""] * len(policies))
            axis.tick_params(axis="y", labelcolor=INK)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
            axis.patch.set_gid(f"frame-{identifier(part)}")
        return report_svg.to_svg(figure, "gold-parts", "Gold reward and its parts for each policy")


def _equal_spans(groups: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[float, float]]:
    """Limits for several axes that cover equally much, so that a small change in one does not look as big as a large one in another."""
    edges = []
    for group in groups:
        values = [value for figures in group for value in (figures.get("mean"), *(figures.get("ci95") or [])) if is_finite_number(value)]
        edges.append((min(values), max(values)) if values else (0.0, 0.0))
    span = max([high - low for low, high in edges] + [0.1]) * 1.15
    return [((low + high - span) / 2, (low + high + span) / 2) for low, high in edges]


def _series_color(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _draw_series(axis: Axes, steps: list[float], values: list[float], color: str, label: str, say_mean: bool = True) -> bool:
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
        axis.plot(along[peak], values[peak], marker="o", markersize=9, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2)
        axis.annotate("peak", (along[peak], values[peak]), xytext=(0, 9), textcoords="offset points", ha="center", color=INK)
        axis.margins(y=0.18)


def _finish_steps(axis: Axes) -> None:
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axis.ticklabel_format(axis="y", useOffset=False)


def _share_axis(axis: Axes, frame: str) -> None:
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.patch.set_gid(frame)
    axis.spines["left"].set_visible(False)


def _interval_point(axis: Axes, value: float, bounds: Sequence[float] | None, row: float, color: str, name: str) -> None:
    if bounds and all(map(is_finite_number, bounds)):
        axis.plot(list(bounds), [row, row], color=color, linewidth=3.2, alpha=0.45, gid=f"interval-{name}")
    axis.plot([value], [row], marker="o", markersize=7, color=color, linestyle="none", gid=f"point-{name}", zorder=4)


def _stacked_shares(axis: Axes, pair: dict[str, Any], row: int, name: str) -> None:
    ties, losses = pair.get("tie_rate"), pair.get("loss_rate")
    if not (is_finite_number(ties) and is_finite_number(losses)):
        return
    wins = max(0.0, 1 - ties - losses)
    left = 0.0
    for share, color, kind in ((wins, GOOD, "wins"), (ties, TIE, "ties"), (losses, BAD, "losses")):
        axis.barh(row, share, left=left, height=0.42, color=color, linewidth=0)[0].set_gid(f"{kind}-{name}")
        if share >= 0.07:
            ink = INK if color == TIE else GRID
            label = report_format.percent(share, 0)
            axis.text(left + share / 2, row, label, ha="center", va="center", color=ink, fontsize=8.5)
        left = math.fsum((left, share))
