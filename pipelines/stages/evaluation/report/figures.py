"""Figures of an evaluation: plain data in, inline SVG out."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipelines.host.visible_text import visible
from pipelines.report import format as report_format
from pipelines.report import svg
from pipelines.report.figures import PANEL, interval_point, series_color, share_axis
from pipelines.report.records import is_finite_number
from pipelines.report.svg import BAD, GOOD, GRID, INK, MUTED, TIE, identifier

SMALL_PANEL = 2.75  # inches wide


def win_rates(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """Win rate with its interval, and beside it the shares of wins, ties and losses, a row a pair; nothing without
    pairs.

    Args:
        pairs: `evaluation.pairs` of the summary.
    """
    rows = [pair for pair in pairs if is_finite_number(pair.get("win_rate"))]
    if not rows:
        return []
    with svg.settings():
        rates, shares = (svg.new_figure(PANEL[0], 0.95 + 0.4 * len(rows)) for _ in range(2))
        share_axis(rates[1], "frame-win-rate")
        share_axis(shares[1], "frame-shares")
        rates[1].axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for row, pair in enumerate(rows):
            name = identifier(str(pair["policy"]), str(pair["baseline"]))
            bounds = pair.get("win_rate_ci95")
            interval_point(rates[1], pair["win_rate"], bounds, row, _side_color(bounds), f"win-rate-{name}")
            _stacked_shares(shares[1], pair, row, name)
        short = report_format.short_names(str(pair[side]) for pair in rows for side in ("baseline", "policy"))
        labels = [f"{short[str(pair['policy'])]} vs {short[str(pair['baseline'])]}" for pair in rows]
        for _, axis in (rates, shares):
            axis.set_yticks(range(len(rows)), labels)
            axis.tick_params(axis="y", labelcolor=INK)
            axis.set_ylim(len(rows) - 0.45, -0.55)
            axis.grid(axis="y", visible=False)
        rates[1].set_title("win rate (wins + half of the ties)")
        shares[1].set_title("share of prompts: won, tied, lost")
        return [
            svg.to_svg(rates[0], "win-rates", "Win rates of the compared policies with 95 % intervals"),
            svg.to_svg(shares[0], "win-shares", "Shares of prompts that were won, tied and lost"),
        ]


def gold_parts(parts: dict[str, dict[str, Any]], totals: dict[str, Any]) -> list[str]:
    """The gold reward and its parts for each policy, with intervals; a panel each, none without parts.

    Args:
        parts: `evaluation.gold_parts` of the summary, policy to part to `{"mean", "ci95"}`.
        totals: policy to `{"mean", "ci95"}` of the whole gold reward.
    """
    names = list(dict.fromkeys(part for policy in parts.values() for part in policy))
    if not names:
        return []
    policies = list(parts)
    labels = list(report_format.short_names(policies).values())
    shown = {"gold": totals, **{part: {policy: parts[policy].get(part) for policy in policies} for part in names}}
    limits = _equal_spans([[figures for figures in by_policy.values() if figures] for by_policy in shown.values()])
    drawings = []
    with svg.settings():
        for (part, by_policy), limit in zip(shown.items(), limits, strict=True):
            figure, axis = svg.new_figure(SMALL_PANEL, 0.7 + 0.3 * max(len(policies), 2))
            for row, policy in enumerate(policies):
                figures = by_policy.get(policy)
                if figures and is_finite_number(figures.get("mean")):
                    name = f"gold-{identifier(policy, part)}"
                    interval_point(axis, figures["mean"], figures.get("ci95"), row, series_color(row), name)
            title = "gold, whole" if part == "gold" else visible(part)
            axis.set_title(title)
            axis.set_xlim(limit)
            axis.set_ylim(len(policies) - 0.4, -0.6)
            axis.set_yticks(range(len(policies)), labels)
            axis.tick_params(axis="y", labelcolor=INK)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
            axis.patch.set_gid(f"frame-{identifier(part)}")
            drawings.append(svg.to_svg(figure, f"gold-parts-{identifier(part)}", f"{title}, for each policy"))
    return drawings


def _side_color(bounds: Sequence[float] | None) -> str:
    """The colour of a win rate: good or bad where its interval lies on one side of a half."""
    if not bounds or not all(map(is_finite_number, bounds)):
        return MUTED
    return GOOD if bounds[0] > 0.5 else BAD if bounds[-1] < 0.5 else MUTED


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
            axis.text(left + share / 2, row, label, ha="center", va="center", color=ink, fontsize=9.5)
        left = math.fsum((left, share))
