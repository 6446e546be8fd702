"""Who wins side by side, as figures: plain data in, inline SVG out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pipelines.report import format as report_format
from pipelines.report import svg
from pipelines.report.figures import PANEL, interval_point, share_axis
from pipelines.report.records import is_finite_number
from pipelines.report.svg import BAD, GOOD, GRID, INK, MUTED, TIE, identifier


def win_rates(pairs: Sequence[Mapping[str, Any]], prefix: str = "") -> list[str]:
    """Win rate with its interval, and beside it the shares of wins, ties and losses, a row a pair; nothing without
    pairs.

    Args:
        pairs: each with `policy`, `baseline`, `win_rate`, `win_rate_ci95`, `tie_rate` and `loss_rate`, and with `set`
            where there are several of its prompts.
        prefix: of the drawings' ids, which are unique on a page.
    """
    rows = [pair for pair in pairs if is_finite_number(pair.get("win_rate"))]
    if not rows:
        return []
    with svg.settings():
        rates, shares = (svg.new_figure(PANEL[0], 0.95 + 0.4 * len(rows)) for _ in range(2))
        share_axis(rates[1], f"{prefix}frame-win-rate")
        share_axis(shares[1], f"{prefix}frame-shares")
        rates[1].axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for row, pair in enumerate(rows):
            name = identifier(*(str(pair[key]) for key in ("policy", "baseline", "set") if key in pair))
            bounds = pair.get("win_rate_ci95")
            interval_point(rates[1], pair["win_rate"], bounds, row, _side_color(bounds), f"{prefix}win-rate-{name}")
            _stacked_shares(shares[1], pair, row, f"{prefix}{name}")
        short = report_format.short_names(str(pair[side]) for pair in rows for side in ("baseline", "policy"))
        sets = [f", {pair['set']}" if "set" in pair else "" for pair in rows]
        labels = [
            f"{short[str(pair['policy'])]} vs {short[str(pair['baseline'])]}{of_set}"
            for pair, of_set in zip(rows, sets, strict=True)
        ]
        for _, axis in (rates, shares):
            axis.set_yticks(range(len(rows)), labels)
            axis.tick_params(axis="y", labelcolor=INK)
            axis.set_ylim(len(rows) - 0.45, -0.55)
            axis.grid(axis="y", visible=False)
        rates[1].set_title("win rate (wins + half of the ties)")
        shares[1].set_title("share of prompts: won, tied, lost")
        return [
            svg.to_svg(rates[0], f"{prefix}win-rates", "Win rates of the compared policies with 95 % intervals"),
            svg.to_svg(shares[0], f"{prefix}win-shares", "Shares of prompts that were won, tied and lost"),
        ]


def _side_color(bounds: Sequence[float] | None) -> str:
    """The colour of a win rate: good or bad where its interval lies on one side of a half."""
    if not bounds or not all(map(is_finite_number, bounds)):
        return MUTED
    return GOOD if bounds[0] > 0.5 else BAD if bounds[-1] < 0.5 else MUTED


def _stacked_shares(axis: Axes, pair: Mapping[str, Any], row: int, name: str) -> None:
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
