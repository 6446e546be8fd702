"""What a kind of stage adds to a run's summary and report. The kinds hand it in; nothing in this room knows them."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.report.records import RunRecord

Figures = dict[str, Any]
"""The summary of a run, as in `summary.json`."""

Pointer = tuple[str | int, ...]
"""Keys and indices that lead to a figure in the summary."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """A figure at the top of the report.

    Args:
        label: what it is. style: name of a format, see `page.FORMATS`. path: of the figure.
        interval: of the bounds in its small print, written as the figure is; or None.
    """

    label: str
    style: str
    path: Pointer
    interval: Pointer | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the report.

    Args:
        id: of the HTML element. title: above it and in the navigation.
        template: Jinja file. It sees `run`, `summary`, `shown`, the filters of `page.py`, and `values`.
        values: from the run and its summary to what else the template names; drawings are SVG text or None. None leaves
            the section out; one that every run should have says what it has not.
    """

    id: str
    title: str
    template: Path
    values: Callable[[RunRecord, Figures], Mapping[str, Any] | None]


@dataclasses.dataclass(frozen=True)
class SeedFigure:
    """A row of the table over seeds: a figure that each seed has.

    Args:
        label: what it is; no other row has the same.
        style: name of a format, see `page.FORMATS`.
        stage: whose figure it is; there is no row where that stage runs once.
        path: of the figure in a seed's summary. minus: of one to be subtracted, or None.
        middle: where two things are compared, the value at which they are level: 0 of a difference, 0.5 of a win rate.
            The table then says how many seeds lie on one side.
        is_detail: True for one that the report shows and the terminal does not.
    """

    label: str
    style: str
    stage: str
    path: Pointer
    minus: Pointer | None = None
    middle: float | None = None
    is_detail: bool = False


def _nothing(figures: Figures) -> list[Any]:
    return []


def _no_verdict(figures: Figures) -> str | None:
    return None


@dataclasses.dataclass(frozen=True)
class KindReport:
    """What a kind adds.

    Args:
        kind: the kind.
        summarize: from a run to the keys that it adds to the summary. They are there in every run, null where nothing
            is known.
        color: CSS variable of its boxes in the chain, or None for the plain one.
        sections: in order.
        tiles: figures for the top; one that the summary lacks is left out.
        lines: (name, value) of what a finished run prints.
        over_seeds: from one seed's summary to the figures that are compared over seeds.
        card: lines of Markdown for the run's model card, from its summary.
        verdict: the report's headline, where this kind has one to give; the last kind that has one is heard.
    """

    kind: str
    summarize: Callable[[RunRecord], Figures]
    color: str | None = None
    sections: tuple[Section, ...] = ()
    tiles: Callable[[Figures], list[Tile]] = _nothing
    lines: Callable[[Figures], list[tuple[str, str]]] = _nothing
    over_seeds: Callable[[Figures], list[SeedFigure]] = _nothing
    card: Callable[[Figures], list[str]] = _nothing
    verdict: Callable[[Figures], str | None] = _no_verdict


def look_up(figures: Any, path: Pointer) -> Any:
    """The value at a path of keys and indices; None where it leads nowhere."""
    for key in path:
        if isinstance(figures, dict):
            figures = figures.get(key)
        elif isinstance(figures, list) and isinstance(key, int) and key < len(figures):
            figures = figures[key]
        else:
            return None
    return figures


def final_figures(run: RunRecord, kind: str, keys: tuple[str, ...]) -> Figures:
    """`stage` and these final figures of the last finished stage of a kind, all None without one."""
    stage = run.last_of_kind(kind)
    final = stage.final if stage else {}
    return {"stage": stage.name if stage else None, **{key: final.get(key) for key in keys}}
