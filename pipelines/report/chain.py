"""The chain of a run as boxes and arrows: which stage used which, how long it took, how much memory."""

from dataclasses import dataclass, field

from pipelines.report import format as report_format
from pipelines.report.records import StageRecord

BOX_WIDTH, BOX_HEIGHT = 148, 92
GAP_X, GAP_Y = 32, 22
LANE = 16


@dataclass(frozen=True)
class Box:
    """A stage in the drawing; `x`, `y`: its upper left corner; `uses`: the names of all its inputs."""

    stage: StageRecord
    x: float
    y: float
    facts: list[str]
    uses: list[str]


@dataclass(frozen=True)
class Chain:
    """The drawing: boxes, arrows as SVG path data, and its size in SVG units."""

    width: float
    height: float
    boxes: list[Box] = field(default_factory=list)
    arrows: list[str] = field(default_factory=list)


def layout(stages: list[StageRecord]) -> Chain:
    """Place the stages: a column for each step of dependence, from left to right, in the workflow's order within a
    column.

    Args:
        stages: finished stages in the workflow's order, so that a stage comes after those it uses.

    Returns:
        The drawing; empty without stages.
    """
    names = {stage.name for stage in stages}
    inputs = {stage.name: [name for name in stage.inputs if name in names] for stage in stages}
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
        boxes.append(Box(stage, *corner[stage.name], facts=_facts(stage), uses=inputs[stage.name]))
    bottom = max((y for _, y in corner.values()), default=0) + BOX_HEIGHT
    arrows = []
    for stage in stages:
        for name in _direct(stage.name, inputs):
            if name not in corner:
                continue
            skips = column[stage.name] - column[name] > 1
            bottom += LANE if skips else 0
            arrows.append(
                _lane_arrow(corner[name], corner[stage.name], bottom)
                if skips
                else _arrow(corner[name], corner[stage.name])
            )
    columns = max(column.values(), default=-1) + 1
    return Chain(width=max(columns * (BOX_WIDTH + GAP_X) - GAP_X + 4, 0), height=bottom + 2, boxes=boxes, arrows=arrows)


def _direct(name: str, inputs: dict[str, list[str]]) -> list[str]:
    """Inputs that are not also reached through another input: the others would only draw lines across boxes."""
    return [
        one for one in inputs[name] if not any(_reaches(other, one, inputs) for other in inputs[name] if other != one)
    ]


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


def _lane_arrow(start: tuple[float, float], end: tuple[float, float], lane: float) -> str:
    """An arrow over more than one column: down between two columns, along a lane below all boxes, up again; it crosses
    no box."""
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2 + 12
    x2, y2 = end[0] - 5, end[1] + BOX_HEIGHT / 2 + 12
    down, up = x1 + GAP_X / 2, x2 - GAP_X / 2 + 4
    return (
        f"M{x1:g} {y1:g} H{down - 6:g} Q{down:g} {y1:g} {down:g} {y1 + 6:g} V{lane - 6:g} Q{down:g} {lane:g} "
        f"{down + 6:g} {lane:g} H{up - 6:g} Q{up:g} {lane:g} {up:g} {lane - 6:g} V{y2 + 6:g} Q{up:g} {y2:g} {up + 6:g} "
        f"{y2:g} H{x2:g}"
    )
