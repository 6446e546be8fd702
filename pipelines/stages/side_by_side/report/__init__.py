"""What sides by side add to summary and report.

Looked at in `final.json`, all optional: `KEYS`, see `run`.

Added to the summary: `side_by_side`, a list of `{stage, KEYS}` in the workflow's order.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.report.card import table
from pipelines.report.format import interval as as_interval
from pipelines.report.format import number, percent, short_names
from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure
from pipelines.report.records import RunRecord, is_finite_number
from pipelines.report.win_rates import win_rates
from pipelines.stages.side_by_side.report.words import (
    health_words,
    judge_name,
    judge_words,
    people_words,
    verdict_words,
)

KIND = "side_by_side"
KEYS = ("judge", "answer", "order", "prompts", "dropped_prompts", "comparisons")
ALL = "all"
_HEAD = ("policy", "baseline", "prompts", "pairs", "won", "tied", "lost", "win rate", "length-controlled")


def _summarize(run: RunRecord) -> Figures:
    return {KIND: [{"stage": one.name, **{key: one.final.get(key) for key in KEYS}} for one in run.of_kind(KIND)]}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any] | None:
    found = figures[KIND]
    if not found:
        return None
    return {
        "judges": [judge_words(one) for one in found],
        "short": short_names(name for one in found for name in _names(one)),
        "health": [[health_words(each) for each in one["comparisons"] or []] for one in found],
        "people": [[people_words(each) for each in one["comparisons"] or []] for one in found],
        "rates_drawings": [drawing for one in found for drawing in win_rates(_rows(one), f"{one['stage']}-")],
    }


def _names(found: Mapping[str, Any]) -> list[str]:
    return [one[side] for one in found["comparisons"] or [] for side in ("baseline", "policy")]


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of the drawing for each set of each comparison; the set has no name where there is but one."""
    rows = []
    for one in found["comparisons"] or []:
        for name, figures in one["sets"].items():
            named = {"set": name} if len(one["sets"]) > 1 else {}
            rows.append({"policy": one["policy"], "baseline": one["baseline"], **named, **figures})
    return rows


def _lines(figures: Figures) -> list[tuple[str, str]]:
    lines = []
    for found in figures[KIND]:
        for one in found["comparisons"] or []:
            of_all, who = one["sets"][ALL], f"{one['policy']} against {one['baseline']}, judged by {judge_name(found)}"
            lines.append(
                (f"{found['stage']}: win rate", f"{of_all['win_rate']:.3f}{interval(of_all['win_rate_ci95'])}, {who}")
            )
            controlled = f"{of_all['length_controlled']:.3f}{interval(of_all['length_controlled_ci95'])}"
            lines.append((f"{found['stage']}: length-controlled", controlled))
            if of_all["people"]:
                agreement = of_all["people"]["agreement"]
                said = ", ".join(
                    f"{name} {one['agreement']:.3f}{interval(one['agreement_ci95'])}" for name, one in agreement.items()
                )
                lines.append((f"{found['stage']}: agreement with people", said))
    return lines


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    """The win rate of each comparison over all sets."""
    return [figure for number, found in enumerate(figures[KIND]) for figure in _of_stage(number, found)]


def _of_stage(number: int, found: Mapping[str, Any]) -> Iterator[SeedFigure]:
    for place, one in enumerate(found["comparisons"] or []):
        label = f"{found['stage']}: {one['policy']} against {one['baseline']}"
        path = (KIND, number, "comparisons", place, "sets", ALL)
        for key, name in (("win_rate", "win rate"), ("length_controlled", "length-controlled win rate")):
            if is_finite_number(one["sets"][ALL].get(key)):
                yield SeedFigure(f"{label}: {name}", "percent", found["stage"], (*path, key), middle=0.5)


def _card(figures: Figures) -> list[str]:
    lines = []
    for found in figures[KIND]:
        rows, comparisons = [], found["comparisons"] or []
        for one in comparisons:
            for name, of_set in one["sets"].items():
                shares = (percent(of_set[key]) for key in ("wins", "tie_rate", "loss_rate"))
                rates = (
                    f"{percent(of_set[key])} {as_interval(of_set[f'{key}_ci95'], True)}".rstrip()
                    for key in ("win_rate", "length_controlled")
                )
                rows.append([one["policy"], one["baseline"], name, number(of_set["pairs"]), *shares, *rates])
        said = [words for one in comparisons for words in (health_words(one), people_words(one)) if words]
        lines += [f"## Side by side ({found['stage']})", "", judge_words(found), ""]
        lines += [*table(_HEAD, rows), "", *(f"- {words}" for words in said), ""]
    return lines


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--good",
    sections=(Section(KIND, "Side by side", Path(__file__).with_name("side_by_side.html.j2"), _section),),
    lines=_lines,
    over_seeds=_over_seeds,
    card=_card,
    verdict=lambda figures: next(filter(None, map(verdict_words, reversed(figures[KIND]))), None),
)
