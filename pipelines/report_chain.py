"""The chain of a run as boxes and arrows: which stage used which, how long it took, how much memory."""

from dataclasses import dataclass, field
from typing import Any

from pipelines import report_format
from pipelines.run_reader import StageRecord

BOX_WIDTH, BOX_HEIGHT = 148, 92
GAP_X, GAP_Y = 32, 22
_REFERRING_KEYS = ("from", "from_", "data", "reward", "compare", "judge", "rater", "reference")


@dataclass(frozen=True)
class Box:
    """A stage in the drawing; `x`, `y`: its upper left corner."""

    stage: StageRecord
    x: float
    y: float
    facts: list[str]


@dataclass(frozen=True)
class Chain:
    """The drawing: boxes, arrows as SVG path data, and its size in SVG units."""

    width: float
    height: float
    boxes: list[Box] = field(default_factory=list)
    arrows: list[str] = field(default_factory=list)


def inputs_of(stage: StageRecord, names: set[str]) -> list[str]:
    """The stages a stage's configuration refers to, in the order of its keys, each once."""
    found: list[str] = []
    for key in _REFERRING_KEYS:
        _collect(stage.config.get(key), names, found)
    return list(dict.fromkeys(name for name in found if name != stage.name))


def layout(stages: list[StageRecord]) -> Chain:
    """Place the stages: a column for each step of dependence, from left to right, in the workflow's order within a column.

    Args:
        stages: finished stages in the workflow's order, so that a stage comes after those it uses.

    Returns:
        The drawing; empty without stages.
    """
    names = {stage.name for stage in stages}
    inputs = {stage.name: inputs_of(stage, names) for stage in stages}
    column: dict[str, int] = {}
    for stage in stages:
        column[stage.name] = 1 + max((column[name] for name in inputs[stage.name] if name in column), default=-1)
    rows: dict[int, int] = {}
    corner: dict[str, tuple[float, float]] = {}
    boxes = []
    for stage in stages:
        place = column[stage.name]
        row = rows.get(place, 0)
        rows[place] = row + 1
        corner[stage.name] = (2 + place * (BOX_WIDTH + GAP_X), 2 + row * (BOX_HEIGHT + GAP_Y))
        boxes.append(Box(stage, *corner[stage.name], facts=_facts(stage)))
    arrows = [_arrow(corner[name], corner[stage.name]) for stage in stages for name in _direct(stage.name, inputs) if name in corner]
    columns, tallest = max(column.values(), default=-1) + 1, max(rows.values(), default=0)
    return Chain(
        width=max(columns * (BOX_WIDTH + GAP_X) - GAP_X + 4, 0),
        height=max(tallest * (BOX_HEIGHT + GAP_Y) - GAP_Y + 4, 0),
        boxes=boxes,
        arrows=arrows,
    )


def _direct(name: str, inputs: dict[str, list[str]]) -> list[str]:
    """Inputs that are not also reached through another input: the others would only draw lines across boxes."""
    return [one for one in inputs[name] if not any(_reaches(other, one, inputs) for other in inputs[name] if other != one)]


def _reaches(name: str, goal: str, inputs: dict[str, list[str]]) -> bool:
    return any(one == goal or _reaches(one, goal, inputs) for one in inputs.get(name, []))


def _facts(stage: StageRecord) -> list[str]:
    usage = " · ".join((report_format.seconds(stage.seconds), report_format.gib(stage.peak_memory_gib)))
    return [report_format.words(stage.kind), usage, stage.backend or ""]


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve from the right side of one box to the left side of another, its head drawn by the template's marker."""
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2
    x2, y2 = end[0] - 5, end[1] + BOX_HEIGHT / 2
    middle = x2 - GAP_X / 2 + 2
    if y1 == y2:
        return f"M{x1:g} {y1:g} H{x2:g}"
    return f"M{x1:g} {y1:g} H{middle - 16:g} C{middle:g} {y1:g} {middle - 8:g} {y2:g} {x2:g} {y2:g}"


def _collect(value: Any, names: set[str], found: list[str]) -> None:
    if isinstance(value, str):
        name = value.split(":", 1)[1] if value.startswith("reward_model:") else value
        if name in names:
            found.append(name)
    elif isinstance(value, list):
        for item in value:
            _collect(item.get("reward") if isinstance(item, dict) else item, names, found)
