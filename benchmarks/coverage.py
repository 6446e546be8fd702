"""How often the intervals that the project prints hold the truth, by simulation; writes a table in docs/intervals.md.

    python -m benchmarks.coverage                          # 2,000 repetitions a cell: two hours on one core
    python -m benchmarks.coverage --only regret            # the figures whose names hold a word; other rows stay
    python -m benchmarks.coverage --repetitions 200 --no-write

A cell is a figure, a rate, a number of prompts and one of samples a prompt. What is simulated for each figure stands in
`benchmarks/coverage_cases.py`.
"""

import argparse
import concurrent.futures
import functools
import itertools
import pathlib
import sys

import numpy as np

from benchmarks.coverage_cases import FIGURES, RATES, Figure
from benchmarks.pages import write_between
from gemma_keras.random import generator

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "intervals.md"
BEGIN, END = "<!-- python -m benchmarks.coverage writes from here -->", "<!-- to here -->"
PROMPTS = (20, 64, 600)
SAMPLES = (1, 4, 8)
LOWEST, HIGHEST = 0.92, 0.98
SEED = 17


def main(arguments: list[str] | None = None) -> int:
    """Simulate; 1 where a cell covers less than it must, or more though it need not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--only", nargs="+", default=[], metavar="FIGURE", help="words that the figure's name holds")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    figures = [one for one in FIGURES if all(word in one.name for word in options.only)]
    cells = [
        (FIGURES.index(figure), rate, prompts, samples)
        for figure in figures
        for rate, prompts, samples in itertools.product(RATES, PROMPTS, SAMPLES)
    ]
    rows, faults = {}, 0
    covered = functools.partial(_covered, repetitions=options.repetitions)
    with concurrent.futures.ProcessPoolExecutor(max(options.jobs, 1)) as pool:
        found = iter(pool.map(covered, cells) if options.jobs > 1 else map(covered, cells))
        for figure in figures:
            for rate in RATES:
                row = [next(found) for _ in range(len(PROMPTS) * len(SAMPLES))]
                faults += sum(
                    _is_fault(figure, *cell, prompts)
                    for cell, (prompts, _) in zip(row, itertools.product(PROMPTS, SAMPLES), strict=True)
                )
                line = f"{_label(figure, rate)} " + " | ".join(_words(*cell) for cell in row) + " |"
                rows[_label(figure, rate)] = line
                print(line, flush=True)
    if not options.no_write:
        write(rows)
    return int(faults > 0)


def write(rows: dict[str, str]) -> None:
    """Put rows into the table, by their labels; those that were not measured again stay."""
    old = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    labels = [_label(figure, rate) for figure in FIGURES for rate in RATES]
    known = {label: line for line in old.splitlines() for label in labels if line.startswith(label)} | rows
    lines = [*_heading(), *(known[label] for label in labels if label in known)]
    write_between(PAGE, BEGIN, END, lines)


def _label(figure: Figure, rate: float) -> str:
    return f"| {figure.name} | {rate} |"


def _covered(cell: tuple[int, float, int, int], repetitions: int) -> tuple[float, float]:
    """Share of the repetitions in which the interval holds the truth, and the smallest share of at least `LOWEST` that
    any interval around the estimate could have."""
    number, rate, prompts, samples = cell
    figure = FIGURES[number]
    hits, estimates = 0, []
    for repetition in range(repetitions):
        rng = generator(SEED, figure.name, f"{rate}", prompts, samples, repetition)
        estimate, (low, high), truth = figure.measure(rng, rate, prompts, samples)
        hits += low - 1e-12 <= truth <= high + 1e-12
        estimates.append(round(estimate, 9))
    return hits / repetitions, attainable(estimates)


def attainable(estimates: list[float]) -> float:
    """What the discreteness of an estimate allows: the smallest probability, at least `LOWEST`, that neighbouring
    values of it have together. An interval covers the truth at a set of such values."""
    _, counts = np.unique(estimates, return_counts=True)
    below = np.concatenate([[0.0], np.cumsum(counts) / len(estimates)])
    firsts = np.searchsorted(below, below[:-1] + LOWEST - 1e-12)
    reached = firsts < len(below)
    return float((below[firsts[reached]] - below[:-1][reached]).min())


def _is_fault(figure: Figure, covered: float, possible: float, prompts: int) -> bool:
    if figure.is_comparison:
        return False
    return covered < LOWEST or (covered > HIGHEST and possible <= HIGHEST and prompts > figure.conservative_to)


def _words(covered: float, possible: float) -> str:
    share = f"{100 * covered:.1f}"
    if covered <= HIGHEST:
        return share
    return f"{share} ({100 * possible:.1f})" if possible > HIGHEST else f"{share} *"


def _heading() -> list[str]:
    columns = [f"{prompts} × {samples}" for prompts in PROMPTS for samples in SAMPLES]
    return ["| figure | rate | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]


if __name__ == "__main__":
    sys.exit(main())
