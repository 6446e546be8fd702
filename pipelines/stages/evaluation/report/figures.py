"""Figures of an evaluation: plain data in, inline SVG out."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipelines.host.visible_text import visible
from pipelines.report import format as report_format
from pipelines.report import svg
from pipelines.report.figures import interval_point, series_color
from pipelines.report.records import is_finite_number
from pipelines.report.svg import INK, identifier

SMALL_PANEL = 2.75  # inches wide


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
