"""A measured curve for each page of docs/algorithms, from a run of `quickstart_algorithms.yaml` with several seeds.

    python -m benchmarks.algorithm_curves runs/quickstart_algorithms

Writes docs/algorithms/<page>.png: the mean over seeds, and from the lowest to the highest of them.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.algorithms import ROOT, seeds_of, stage_of
from pipelines.report.records import RunRecord, StageRecord, read_run

FOLDER = ROOT / "docs/algorithms"
COLORS = ("#2b6cb0", "#dd6b20")
POLICY = (("eval_gold", "gold reward, held-out prompts"), ("eval_kl_sequence", "KL to the tuned model, nats"))
PREFERENCES = (("eval_rewards/accuracies", "held-out pairs told right"), ("eval_rewards/margins", "margin, nats"))


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page's picture shows.

    Args:
        stage: of the workflow. across: what counts along the picture.
        metrics: two panels, each a metric and its label; of best of n figures of its curve.
    """

    stage: str
    across: str
    metrics: Sequence[tuple[str, str]]


PAGES = {
    **{name: Page(name, "step", POLICY) for name in ("rloo", "reinforce", "grpo", "ppo")},
    "preference_optimization": Page("dpo", "update", PREFERENCES),
    "best_of_n": Page("best", "answers a prompt", (("gold", "gold reward"), ("reward", "learned reward"))),
}


def main(arguments: list[str] | None = None) -> int:
    """Draw all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    write(read_run(parser.parse_args(arguments).run))
    return 0


def write(run: RunRecord) -> None:
    """Draw all pages of a run."""
    for name, page in PAGES.items():
        draw(seeds_of(run), page).savefig(FOLDER / f"{name}.png", dpi=110)


def draw(parts: Sequence[RunRecord], page: Page) -> Figure:
    """Two panels, each with a curve over the seeds."""
    figure = Figure((7.2, 2.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (metric, label), color in zip(figure.subplots(1, 2), page.metrics, COLORS, strict=True):
        found = [series(stage_of(part, page.stage), metric) for part in parts]
        _curve(axis, found[0][0], np.array([values for _, values in found]), color)
        axis.set_xlabel(page.across, fontsize=9)
        axis.set_title(label, fontsize=9)
    return figure


def series(stage: StageRecord, metric: str) -> tuple[list[float], list[float]]:
    """Places and values of a metric; of a best-of-n stage those of its curve over n."""
    if "curve" not in stage.final:
        return stage.series(metric)
    curve = stage.final["curve"]
    return [point["n"] for point in curve], [point[metric]["mean"] for point in curve]


def _curve(axis: Axes, places: Sequence[float], values: np.ndarray, color: str) -> None:
    axis.plot(places, values.mean(axis=0), color=color, linewidth=1.6, marker="o", markersize=3)
    axis.fill_between(places, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(linewidth=0.5, alpha=0.4)
    axis.tick_params(labelsize=8)


if __name__ == "__main__":
    sys.exit(main())
