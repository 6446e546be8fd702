"""Figure and table of a run of `quickstart_algorithms.yaml`: what each algorithm makes of as many sampled responses.

    gemma-keras run workflows/quickstart.yaml
    gemma-keras run workflows/quickstart_algorithms.yaml --seeds 17,18,19
    python -m benchmarks.algorithms runs/quickstart_algorithms

Writes docs/algorithms.png and a table between two marks of benchmarks/README.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.pages import write_between
from pipelines.report.records import RunRecord, StageRecord, read_run

ROOT = Path(__file__).resolve().parents[1]
PICTURE, PAGE = ROOT / "docs/algorithms.png", ROOT / "benchmarks/README.md"
BEGIN, END = "<!-- python -m benchmarks.algorithms writes from here -->", "<!-- algorithms: to here -->"
LABELS = {
    "sft": "`sft`, where all start",
    "rejection": "tuned on the best 2 of 16",
    "chosen": "tuned on the preferred answers, nothing sampled",
    "dpo": "DPO on the preferences, nothing sampled",
    "iterated": "iterated DPO, 3 rounds",
    "rloo": "RLOO",
    "reinforce": "REINFORCE",
    "grpo": "GRPO",
    "ppo": "PPO",
}
PARTS = ("right", "refuses", "polite", "brief")
COLORS = ("#4a5568", "#b7791f", "#718096", "#6b46c1", "#97266d", "#2b6cb0", "#0987a0", "#2f855a", "#c53030")


def main(arguments: list[str] | None = None) -> int:
    """Draw, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--no-write", action="store_true", help="print the table alone")
    options = parser.parse_args(arguments)
    parts = seeds_of(read_run(options.run))
    lines = table(parts)
    print("\n".join(lines))
    if not options.no_write:
        draw(parts).savefig(PICTURE, dpi=150)
        write_between(PAGE, BEGIN, END, lines)
    return 0


def seeds_of(run: RunRecord) -> list[RunRecord]:
    """The run of each seed; of one without seeds itself."""
    return list(run.parts) or [run]


def table(parts: Sequence[RunRecord]) -> list[str]:
    """Means over seeds with the lowest and highest; below it the best of n, which no stage is trained by."""
    lines = [f"| | gold reward | {' | '.join(PARTS)} | KL to `sft` |", "|---|---|" + "---|" * (len(PARTS) + 1)]
    for name, label in LABELS.items():
        found = [evaluated(part, name) for part in parts]
        cells = [
            _over_seeds([one["gold"]["mean"] for one in found], 3),
            *(_over_seeds([one["gold_parts"][each]["mean"] for one in found], 3) for each in PARTS),
            _over_seeds([one["kl_sequence"] for one in found], 2),
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    curves = [stage_of(part, "best").final["curve"] for part in parts]
    best = [
        f"of {points[0]['n']} {_over_seeds([point['gold']['mean'] for point in points], 3)} "
        f"(at most {points[0]['kl_bound']:.2f} nats)"
        for points in zip(*curves, strict=True)
        if points[0]["n"] > 1
    ]
    seeds = f"Means over {len(parts)} seeds [lowest, highest]" if len(parts) > 1 else "One seed"
    return [
        *lines,
        "",
        f"{seeds}. The best answer by the reward model, without any training, has a gold reward",
        f"{', '.join(best)}, on the prompts that it was chosen for.",
    ]


def draw(parts: Sequence[RunRecord]) -> Figure:
    """Gold reward over the KL: a point a seed, a larger one for their mean, and the curve of the best of n."""
    figure = Figure((7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for (name, label), color in zip(LABELS.items(), COLORS, strict=True):
        found = [evaluated(part, name) for part in parts]
        points = np.array([(one["kl_sequence"], one["gold"]["mean"]) for one in found])
        axis.plot(*points.T, "o", color=color, markersize=4, alpha=0.4)
        axis.plot(*points.mean(axis=0), "o", color=color, markersize=9, label=label.replace("`", ""))
    curves = np.array(
        [
            [
                (0 if point["n"] == 1 else point["kl_bound"], point["gold"]["mean"])
                for point in stage_of(part, "best").final["curve"]
            ]
            for part in parts
        ]
    )
    axis.plot(*curves.mean(axis=0).T, color="#a0aec0", linewidth=1.4, label="best of n at its bound, other prompts")
    axis.set_xlabel("KL to the tuned model, nats a response")
    axis.set_ylabel("gold reward on held-out prompts")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(linewidth=0.5, alpha=0.4)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def stage_of(part: RunRecord, name: str) -> StageRecord:
    """A stage of one seed's run."""
    return next(stage for stage in part.stages if stage.name == name)


def evaluated(part: RunRecord, name: str) -> dict:
    """An evaluated policy, by its stage or the last part of its folder; a loop by its last round."""
    policies = stage_of(part, "evaluation").evaluation["policies"]
    return next(found for policy, found in policies.items() if Path(policy).name.startswith(name))


def _over_seeds(values: Sequence[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
