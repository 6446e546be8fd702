"""Figures of an evaluation: plain data in, inline SVG out."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipelines.report import format as report_format
from pipelines.report import svg
from pipelines.report.figures import interval_point, series_color, share_axis
from pipelines.report.records import is_finite_number
from pipelines.report.svg import BAD, GOOD, GRID, INK, MUTED, TIE, identifier


def win_rates(pairs: Sequence[dict[str, Any]]) -> str | None:
    """Win rate with its interval and the shares of wins, ties and losses, a row a pair; None without pairs.

    Args:
        pairs: `evaluation.pairs` of the summary.
    """
    rows = [pair for pair in pairs if is_finite_number(pair.get("win_rate"))]
    if not rows:
        return None
    with svg.settings():
        figure, (rates, shares) = svg.new_figure(10.4, 0.95 + 0.52 * len(rows), 2, sharey=True)
        share_axis(rates, "frame-win-rate")
        share_axis(shares, "frame-shares")
        rates.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for row, pair in enumerate(rows):
            low = (pair.get("win_rate_ci95") or [None])[0]
            high = (pair.get("win_rate_ci95") or [None])[-1]
            color = (
                GOOD if is_finite_number(low) and low > 0.5 else BAD if is_finite_number(high) and high < 0.5 else MUTED
            )
            name = identifier(str(pair["policy"]), str(pair["baseline"]))
            interval_point(rates, pair["win_rate"], pair.get("win_rate_ci95"), row, color, f"win-rate-{name}")
            _stacked_shares(shares, pair, row, name)
        short = report_format.short_names(str(pair[side]) for pair in rows for side in ("baseline", "policy"))
        rates.set_yticks(
            range(len(rows)), [f"{short[str(pair['policy'])]} vs {short[str(pair['baseline'])]}" for pair in rows]
        )
        rates.tick_params(axis="y", labelcolor=INK)
        rates.set_ylim(len(rows) - 0.45, -0.55)
        rates.set_title("win rate (wins + half of the ties)")
        shares.set_title("share of prompts: won, tied, lost")
        for axis in (rates, shares):
            axis.grid(axis="y", visible=False)
        return svg.to_svg(figure, "win-rates", "Win rates of the compared policies with 95 % intervals")


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
    with svg.settings():
        figure, axes = svg.new_figure(
            10.4, 1.0 + 0.2 * max(len(policies), 2) * 2, min(len(names) + 1, 5), -(-(len(names) + 1) // 5)
        )
        for axis in axes[len(names) + 1 :]:
            axis.set_visible(False)
        shown = {"gold": totals, **{part: {policy: parts[policy].get(part) for policy in policies} for part in names}}
        limits = _equal_spans([[figures for figures in by_policy.values() if figures] for by_policy in shown.values()])
        for axis, (part, by_policy), limit in zip(axes, shown.items(), limits, strict=False):
            for row, policy in enumerate(policies):
                figures = by_policy.get(policy)
                if figures and is_finite_number(figures.get("mean")):
                    interval_point(
                        axis,
                        figures["mean"],
                        figures.get("ci95"),
                        row,
                        series_color(row),
                        f"gold-{identifier(policy, part)}",
                    )
            axis.set_title("gold, whole" if part == "gold" else part)
            axis.set_xlim(limit)
            axis.set_ylim(len(policies) - 0.4, -0.6)
            axis.set_yticks(range(len(policies)), labels if axis in axes[::5] else [""] * len(policies))
            axis.tick_params(axis="y", labelcolor=INK)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
            axis.patch.set_gid(f"frame-{identifier(part)}")
        return svg.to_svg(figure, "gold-parts", "Gold reward and its parts for each policy")


def _equal_spans(groups: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[float, float]]:
    """Limits for several axes that cover equally much, so that a small change in one does not look as big as a large
    one in another."""
    edges = []
    for group in groups:
        values = [
            value
            for figures in group
            for value in (figures.get("mean"), *(figures.get("ci95") or []))
            if is_finite_number(value)
        ]
        edges.append((min(values), max(values)) if values else (0.0, 0.0))
    span = max([high - low for low, high in edges] + [0.1]) * 1.15
    return [((low + high - span) / 2, (low + high + span) / 2) for low, high in edges]


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
