"""From measurements to the table in benchmarks/README.md."""

import collections
import dataclasses
import json
import pathlib

from benchmarks.cases import CASES, case_named
from benchmarks.processes import OURS, Measurement

BEGIN = "<!-- make bench writes from here -->"
END = "<!-- to here -->"
LABELS = {OURS: "gemma_keras", "keras_hub": "KerasHub", "transformers": "transformers", "trl": "TRL"}


def read(path: pathlib.Path) -> dict:
    """Stored results: {"runs": [...measurements as dicts...], "machine": {...}}; empty where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {"runs": [], "machine": {}}


def merge(stored: dict, new: list[Measurement], machine: dict) -> dict:
    """Stored results with the new ones in place of those of the same case and backend, in the order of `CASES`."""
    replaced = {(item.case, item.backend) for item in new}
    kept = [run for run in stored["runs"] if (run["case"], run["backend"]) not in replaced]
    order = {case.name: place for place, case in enumerate(CASES)}
    runs = kept + [{**dataclasses.asdict(item), "measured": machine["date"]} for item in new]
    return {"runs": sorted(runs, key=lambda run: (order[run["case"]], run["backend"])), "machine": machine}


def render(results: dict) -> str:
    """The Markdown between the markers."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    groups = collections.defaultdict(list)
    for run in results["runs"]:
        groups[run["case"]].append(run)
    samples = min((len(run["seconds"]) for run in results["runs"] if not run["error"]), default=0)
    lines = [
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']:.0f} GiB, Python "
        f"{machine['python']}, {versions}; last run {machine['date']}.",
        f"Medians of at least {samples} samples after the first call, taken in turns (A B A B) within one run, each "
        "library in its own process. “Ours is × as fast” above 1 means that gemma_keras is the faster one.",
    ]
    for name, runs in groups.items():
        case = case_named(name)
        lines += ["", f"### {case.title[0].upper()}{case.title[1:]}", ""]
        lines += [
            "| backend | library | s a step (range) | tokens/s | ours is × as fast | first call (s) | peak memory "
            "(GiB) |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        ours = {run["backend"]: run for run in runs if run["engine"] == OURS}
        lines += [_row(case, run, ours.get(run["backend"])) for run in runs]
    return "\n".join(lines)


def _row(case, run, ours) -> str:
    label = LABELS[run["engine"]]
    if run["error"]:
        reason = run["error"].replace("|", "\\|")
        return f"| {run['backend']} | {label} | failed: {reason} | | | | |"
    median = _median(run)
    ratio = ""
    if run is not ours and ours is not None and not ours["error"]:
        ratio = f"{median / _median(ours):.2f}"
    low, high = min(run["seconds"]), max(run["seconds"])
    return (
        f"| {run['backend']} | {label} | {median:.3g} ({low:.3g} to {high:.3g}) | {case.tokens / median:,.0f} | "
        f"{ratio} | {run['first_call']:.1f} | {run['memory_gib']:.2f} |"
    )


def _median(run) -> float:
    return Measurement(run["case"], run["backend"], run["engine"], seconds=run["seconds"]).median


def write(path: pathlib.Path, table: str) -> None:
    """Put the table between the markers of a Markdown file; the rest of the file stays.

    Raises:
        ValueError: the markers are missing or out of order.
    """
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path} must hold the lines {BEGIN!r} and {END!r} once each, in this order")
    before, rest = text.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")
