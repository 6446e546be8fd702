"""The README's figure: how many times as fast as the fastest peer, by case and backend.

python -m benchmarks.chart              draws the latest file of benchmarks/results/ as docs/speed.png
"""

import argparse
import collections
import pathlib
import sys

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import table
from benchmarks.case import BACKENDS, OURS, engine

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS, TARGET = ROOT / "benchmarks" / "results", ROOT / "docs" / "speed.png"
SHOWN = {
    "train": "training, 34M, 8 × 256",
    "train_mixed_bfloat16": "the same, mixed bfloat16",
    "train_large_vocabulary": "training, vocabulary 256,000",
    "train_lora": "LoRA, 34M, 8 × 256",
    "context_2048": "training, 1 × 2,048",
    "generate_16": "generation, batch 16",
    "generate_16_bfloat16": "the same, bfloat16",
    "generate_1": "generation, batch 1",
    "generate_top_k": "generation, 262,144 ids, top-k",
    "reinforce": "RL step (RLOO)",
    "reward": "reward model",
    "gemma_3_270m_train": "Gemma 3 270M, training",
    "gemma_3_270m_decode_16": "Gemma 3 270M, generation",
}
"""Case → its line of the figure."""
COLORS = dict(zip(BACKENDS, ("#3b6ea8", "#e08a3c", "#5a9a5b"), strict=True))


def ratios(results: dict) -> dict[str, list[tuple[str, str, float]]]:
    """Case → (backend, its fastest peer, best of the peer / best of ours), in the figure's order; without what was not
    measured."""
    groups = collections.defaultdict(list)
    for run in table.measurements(results):
        if run.part == "":
            groups[run.case, run.backend].append(run)
    found: dict[str, list[tuple[str, str, float]]] = {}
    for case in SHOWN:
        for backend in BACKENDS:
            best = table.fastest(groups[case, backend])
            peers = {name: run.best for name, run in best.items() if engine(name) != OURS}
            if OURS in best and peers:
                peer = min(peers, key=peers.__getitem__)
                found.setdefault(case, []).append((backend, table.LABELS[engine(peer)], peers[peer] / best[OURS].best))
    return found


def draw(found: dict[str, list[tuple[str, str, float]]], machine: str) -> Figure:
    """Horizontal bars, a group a case."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        bars = sum(map(len, found.values()))
        figure = Figure(figsize=(8, 0.9 + 0.23 * bars + 0.14 * len(found)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axis, place, middles = figure.add_subplot(), 0.0, []
        for rows in found.values():
            middles.append(place + (len(rows) - 1) / 2)
            for backend, peer, value in rows:
                axis.barh(place, value, color=COLORS[backend], height=0.85)
                axis.text(value, place, f" {value:.2f} × {peer}", va="center", fontsize=7.5)
                place += 1
            place += 0.6
        axis.axvline(1, color="black", linewidth=0.8)
        axis.axvspan(1 / table.TIE, table.TIE, color="black", alpha=0.08, linewidth=0)
        axis.set_yticks(middles, [SHOWN[case] for case in found])
        axis.set_ylim(place - 0.6, -0.9)
        axis.set_xlim(0, 1.2 * max(value for rows in found.values() for _, _, value in rows))
        axis.set_title(machine, fontsize=9, loc="left")
        axis.set_xlabel(
            "× as fast as the fastest peer on the same backend (TRL: on torch)\nbest steps; within the band: a tie"
        )
        used = [name for name in BACKENDS if any(name == row[0] for rows in found.values() for row in rows)]
        axis.legend([matplotlib.patches.Patch(color=COLORS[name]) for name in used], used, frameon=False)
        return figure


def main(arguments: list[str] | None = None) -> int:
    """Draw; 1 where there is nothing to draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--target", type=pathlib.Path, default=TARGET)
    options = parser.parse_args(arguments)
    results = table.read_all(options.results)
    found = ratios(results[0]) if results else {}
    if not found:
        print(f"{options.results} has none of {', '.join(SHOWN)}: run python -m benchmarks.run", file=sys.stderr)
        return 1
    draw(found, table.machine_name(results[0]["machine"])).savefig(options.target)
    print(options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
