"""Figure and table of a run of `quickstart_hacking.yaml`: what a policy does to its reward with a KL term and without.

    gemma-keras run workflows/quickstart.yaml && gemma-keras run workflows/quickstart_hacking.yaml
    python -m benchmarks.overoptimization runs/quickstart_hacking

Writes docs/overoptimization.png and a table between two marks of README.md.

The highest of many looks at a noisy curve is too high. So the table also has the gold reward at the step where the
*other* seeds' mean curve is highest, which this seed had no say in.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.pages import write_between
from pipelines.measures.statistics import sign_test
from pipelines.report.records import RunRecord, StageRecord, read_run

ROOT = Path(__file__).resolve().parents[1]
PICTURE, PAGE = ROOT / "docs/overoptimization.png", ROOT / "README.md"
BEGIN, END = "<!-- python -m benchmarks.overoptimization writes from here -->", "<!-- to here -->"
WITH_KL, WITHOUT_KL = "with_kl", "without_kl"
LABELS = {
    WITH_KL: "with the KL term",
    WITHOUT_KL: "without it",
    "gold_reward": "without it, trained on the gold reward",
}
COLORS = {WITH_KL: "#2b6cb0", WITHOUT_KL: "#dd6b20", "gold_reward": "#2f855a"}

Curves = dict[str, np.ndarray]
"""Of a policy: `steps` (looks,), and per metric float (seeds, looks)."""


def main(arguments: list[str] | None = None) -> int:
    """Draw, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run with several seeds")
    parser.add_argument("--no-write", action="store_true", help="print the table alone")
    options = parser.parse_args(arguments)
    run = read_run(options.run)
    curves = {name: curves_of(run, name) for name in LABELS}
    lines = table(run, curves)
    print("\n".join(lines))
    if not options.no_write:
        draw(curves).savefig(PICTURE, dpi=150)
        write_between(PAGE, BEGIN, END, lines)
    return 0


def curves_of(run: RunRecord, name: str) -> Curves:
    """What a policy stage measured on held-out prompts in each seed."""
    stages = [_stage(part, name) for part in run.parts]
    metrics = ("eval_reward", "eval_gold", "eval_kl_sequence")
    found = {metric: np.array([stage.series(metric)[1] for stage in stages]) for metric in metrics}
    return {"steps": np.array(stages[0].series("eval_gold")[0]), **found}


def table(run: RunRecord, curves: dict[str, Curves]) -> list[str]:
    """Means over seeds with the lowest and highest, and two sign tests whose sides were named beforehand."""
    seeds = len(run.parts)
    lines = [
        "| policy | reward at the end | gold at its peak | where other seeds peak | at the end | right | KL to `sft` |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, label in LABELS.items():
        gold, policies = curves[name]["eval_gold"], [_evaluated(part, name) for part in run.parts]
        cells = [
            _over_seeds(curves[name]["eval_reward"][:, -1], 2),
            _over_seeds(gold.max(axis=1), 3),
            _over_seeds(peak_of_the_others(gold), 3),
            _over_seeds(gold[:, -1], 3),
            _over_seeds([policy["gold_parts"]["right"]["mean"] for policy in policies], 3),
            _over_seeds([policy["kl_sequence"] for policy in policies], 1),
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    apart = [_gold(part, WITH_KL) - _gold(part, WITHOUT_KL) for part in run.parts]
    fallen = peak_of_the_others(curves[WITHOUT_KL]["eval_gold"]) - curves[WITHOUT_KL]["eval_gold"][:, -1]
    return [
        *lines,
        "",
        f"Means over {seeds} seeds [lowest, highest]; `right` and the KL are of the evaluation. There the gold reward",
        f"with the KL term less that without is {_over_seeds(apart, 3)}, {_signs(apart)}.",
        f"Without it, gold falls from where the other seeds peak to the end by {_over_seeds(fallen, 3)},",
        f"{_signs(fallen)}.",
    ]


def peak_of_the_others(gold: np.ndarray) -> np.ndarray:
    """Each seed's gold reward at the look where the mean of the other seeds is highest: (seeds, looks) to (seeds,)."""
    rows = np.arange(len(gold))
    return np.array([gold[row, gold[rows != row].mean(axis=0).argmax()] for row in rows])


def draw(curves: dict[str, Curves]) -> Figure:
    """Learned and gold reward over steps, a thin line a seed and a thick one for their mean."""
    figure = Figure((10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, metric, title in zip(
        figure.subplots(1, 2), ("eval_reward", "eval_gold"), ("training reward", "gold reward"), strict=True
    ):
        for name, label in LABELS.items():
            steps, values = curves[name]["steps"], curves[name][metric]
            if metric == "eval_reward" and name == "gold_reward":
                continue  # on a scale of its own: it is the gold reward
            axis.plot(steps, values.T, color=COLORS[name], linewidth=0.8, alpha=0.35)
            axis.plot(steps, values.mean(axis=0), color=COLORS[name], linewidth=2.2, label=label)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", linewidth=0.5, alpha=0.4)
    figure.axes[1].legend(frameon=False)
    return figure


def _stage(part: RunRecord, name: str) -> StageRecord:
    return next(stage for stage in part.stages if stage.name == name)


def _evaluated(part: RunRecord, name: str) -> dict:
    return _stage(part, "evaluation").evaluation["policies"][name]


def _gold(part: RunRecord, name: str) -> float:
    return _evaluated(part, name)["gold"]["mean"]


def _over_seeds(values, digits: int) -> str:
    return f"{np.mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _signs(values) -> str:
    positive, negative = sum(value > 0 for value in values), sum(value < 0 for value in values)
    return f"above 0 in {positive} of {len(values)} (one-sided sign test: p = {sign_test(positive, negative):.3f})"


if __name__ == "__main__":
    sys.exit(main())
