"""`plan FILE --memory`: GiB of each stage, part by part, and which keys make it smaller."""

import argparse

from pipelines.memory.usage import GIB, PARTS
from pipelines.run.memory import SPARE, StageMemory, cannot_be_tuned_in_full, plan_memory, remedies
from pipelines.workflow.loading import LoadedWorkflow

MOST_REMEDIES = 6


def gib(text: str) -> float:
    """A device's memory, as `24`, `24GB` or `24GiB`; both mean GiB, as cards are sold.

    Raises:
        argparse.ArgumentTypeError: anything else, or nothing.
    """
    lowered = text.strip().lower()
    try:
        value = float(lowered.removesuffix("gib").removesuffix("gb"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected GiB of a device such as 24 or 24GiB, got {text!r}")
    return value


def memory_lines(loaded: LoadedWorkflow, device: float | None) -> tuple[list[str], int]:
    """What to print, and how many stages do not fit.

    Args:
        device: its memory in GiB; None for the table and the largest stage alone.

    Raises:
        ConfigError: a model whose sizes cannot be read, with its place in the file.
    """
    planned = plan_memory(loaded)
    known = [stage for stage in planned if stage.usages]
    lines = _table(known)
    lines += [f"{stage.stage}: nothing is known of its memory" for stage in planned if not stage.usages]
    if not known:
        return lines, 0
    largest = max(known, key=lambda stage: stage.peak.total)
    lines += ["", f"The largest stage is {largest.stage}, {_gib(largest.peak.total)} GiB while {largest.peak.doing}."]
    if device is None:
        return lines + _advice(loaded, largest, 0.0), 0
    room = (1 - SPARE) * device
    tight = [stage for stage in known if stage.peak.total > room * GIB]
    limit = f"the {room:.1f} GiB that {device:g} leave with {SPARE:.0%} to spare"
    if not tight:
        return [*lines, f"Every stage fits into {limit}."], 0
    for stage in tight:
        place = loaded.where(("stages", stage.stage))
        lines.append(
            f"{place}: {stage.stage} needs {_gib(stage.peak.total)} GiB while {stage.peak.doing}, over {limit}."
        )
        lines += _advice(loaded, stage, room * GIB)
    return lines, len(tight)


def _table(planned: list[StageMemory]) -> list[str]:
    rows = [["GiB", "at most while", *PARTS, "sum"]]
    for stage in planned:
        peak = stage.peak
        rows.append([stage.stage, peak.doing, *map(_gib, peak.parts().values()), _gib(peak.total)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in cells).rstrip()
        for cells in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]


def _advice(loaded: LoadedWorkflow, stage: StageMemory, room: float) -> list[str]:
    """The keys that help, each with what the stage needs with that one changed."""
    found = remedies(loaded, stage.stage, room)[:MOST_REMEDIES]
    lines = []
    if room and cannot_be_tuned_in_full(loaded, stage.stage, room):
        lines.append(
            "  Weights, gradients, moments and frozen models do not fit: all weights cannot be trained there. Set lora."
        )
        found.sort(key=lambda remedy: not remedy.text.startswith("lora"))
    for kept, title in ((True, "with the same result"), (False, "by other training or sampling")):
        texts = [f"{one.text} ({_gib(one.total)} GiB)" for one in found if one.keeps_result == kept]
        if texts:
            lines.append(f"  Smaller {title}: {', '.join(texts)}")
    return lines


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
