"""From measurements to the table in benchmarks/README.md."""

import collections
import dataclasses
import json
import pathlib
import re

from benchmarks import peak
from benchmarks.case import OURS, SETTINGS, engine, variant
from benchmarks.cases import CASES, case_named
from benchmarks.measuring import Measurement

BEGIN = "<!-- make bench writes from here -->"
END = "<!-- to here -->"
LABELS = {
    OURS: "gemma_keras",
    "keras_hub": "KerasHub",
    "transformers": "transformers",
    "trl": "TRL",
    "llama_cpp": "llama.cpp",
}
_VARIANT_LABELS = {"xla": "XLA", "bfloat16_rollouts": "rollouts in bfloat16"}
TIE = 1.05
"""Ratios between this and its inverse are ties."""


def read(path: pathlib.Path) -> dict:
    """Stored results: {"runs": [...measurements as dicts...], "machine": {...}}; empty where there is no file. What an
    earlier form of the benchmark measured is not comparable and left out."""
    if not path.exists():
        return {"runs": [], "machine": {}}
    stored = json.loads(path.read_text())
    return {**stored, "runs": [run for run in stored["runs"] if "library" in run]}


def machine_name(machine: dict) -> str:
    """The kind of machine that results are of."""
    return f"{machine['processor']}, {machine['cores']} cores"


def file_name(machine: dict) -> str:
    """Of the results of a kind of machine: figures of two are not comparable and stand in two tables."""
    return re.sub(r"[^a-z0-9]+", "_", machine_name(machine).lower()).strip("_") + ".json"


def read_all(folder: pathlib.Path) -> list[dict]:
    """The stored results of every machine, the latest first; those without any left out."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    return sorted((each for each in found if each["runs"]), key=lambda each: each["machine"]["date"], reverse=True)


def merge(stored: dict, new: list[Measurement], machine: dict) -> dict:
    """Stored results with the new ones in place of those of the same case and backend, in the order of `CASES`."""
    replaced = {(item.case, item.backend) for item in new}
    order = {case.name: place for place, case in enumerate(CASES)}
    kept = [run for run in stored["runs"] if (run["case"], run["backend"]) not in replaced and run["case"] in order]
    about = {"measured": machine["date"], "revision": machine["revision"]}
    runs = kept + [{**dataclasses.asdict(item), **about} for item in new]
    return {"runs": sorted(runs, key=lambda run: (order[run["case"]], run["backend"])), "machine": machine}


def measurements(results: dict) -> list[Measurement]:
    """The stored runs."""
    names = {field.name for field in dataclasses.fields(Measurement)}
    return [Measurement(**{name: value for name, value in run.items() if name in names}) for run in results["runs"]]


def fastest(runs: list[Measurement]) -> dict[str, Measurement]:
    """Library without its setting → its fastest run, of one case, backend and part; those that failed are left out."""
    found: dict[str, Measurement] = {}
    for run in runs:
        name = engine(run.library) if variant(run.library) in SETTINGS else run.library
        if run.error is None and (name not in found or run.best < found[name].best):
            found[name] = run
    return found


_HOW = (
    "Samples after the first call, taken in turns (A B A B) within one run, each library in its own process. “Ours is "
    "× as fast” is the ratio of the best steps, that of the medians in brackets; above 1 gemma_keras is the faster "
    "one, and less than 5 % apart is a tie. Where a library ran with and without XLA its faster setting counts."
)


def render(results: list[dict]) -> str:
    """The Markdown between the markers, of the results of each machine."""
    return "\n\n".join([_HOW, *map(_render_machine, results)])


def _render_machine(results: dict) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    groups = collections.defaultdict(list)
    for run in measurements(results):
        groups[run.case].append(run)
    lines = [
        f"### {machine_name(machine)}",
        "",
        f"{machine['memory_gib']:.0f} GiB, Python {machine['python']}, {versions}; last run {machine['date']}.",
        *([peak.sentence(machine["peak"])] if machine.get("peak") else []),
    ]
    for name, runs in groups.items():
        case = case_named(name)
        lines += ["", f"#### {case.title[0].upper()}{case.title[1:]}", ""]
        if case.memory_limit_gib:
            lines += [f"One library after the other, each within {case.memory_limit_gib:g} GiB.", ""]
        lines += [
            "| backend | library | s a step, best | median (quartiles) | tokens/s | ours is × as fast | first call (s) "
            "| peak memory (GiB) |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        parts = collections.defaultdict(list)
        for run in runs:
            parts[run.backend, run.part].append(run)
        for part in parts.values():
            best = fastest(part)
            lines += [_row(case, run, best) for run in part]
    return "\n".join(lines)


def label(run: Measurement) -> str:
    """A library, its variant and the part of the case."""
    other = _VARIANT_LABELS.get(variant(run.library), variant(run.library))
    return ", ".join(filter(None, (LABELS[engine(run.library)], other, run.part)))


def ratio(run: Measurement, ours: Measurement) -> str:
    """How many times as fast ours is, by bests and by medians."""
    by_best, by_median = run.best / ours.best, run.quartiles[1] / ours.quartiles[1]
    tie = ", tie" if 1 / TIE < by_best < TIE else ""
    return f"{by_best:.2f}{tie} ({by_median:.2f})"


def _row(case, run, best) -> str:
    if run.error:
        return f"| {run.backend} | {label(run)} | {_reason(run)} | | | | | |"
    ours = best.get(OURS)
    compared = ours is not None and run is not ours and any(run is each for each in best.values())
    low, median, high = run.quartiles
    tokens = case.tokens if run.part == "" and case.kind != "first_call" else 0
    cells = [
        run.backend,
        label(run),
        f"{run.best:.3g}",
        f"{median:.3g} ({low:.3g} to {high:.3g})",
        f"{tokens / run.best:,.0f}" if tokens else "",
        ratio(run, ours) if compared else "",
        "" if run.first_call is None else f"{run.first_call:.1f}",
        f"{run.memory_gib:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _reason(run) -> str:
    reason = run.error.replace("|", "\\|")
    return reason if run.does_not_fit else f"failed: {reason}"


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
