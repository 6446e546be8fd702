"""The table and the figure of the algorithms, from a made-up run of two seeds."""

import pytest

from benchmarks import algorithms
from pipelines.report.records import RunRecord, StageRecord

pytestmark = pytest.mark.no_backend


def part(shift):
    def policy(gold, kl):
        return {
            "gold": {"mean": gold + shift},
            "gold_parts": {name: {"mean": 0.5 + shift} for name in algorithms.PARTS},
            "kl_sequence": kl,
        }

    names = {name: name for name in algorithms.LABELS} | {
        "sft": "/runs/quickstart/stages/sft",
        "iterated": "iterated_3_dpo",
    }
    policies = {names[name]: policy(0.7, float(place)) for place, name in enumerate(algorithms.LABELS)}
    curve = [
        {"n": n, "kl_bound": bound, "gold": {"mean": 0.7 + 0.05 * n + shift}}
        for n, bound in ((1, 0.0), (2, 0.19), (4, 0.64))
    ]
    stages = [
        StageRecord("best", kind="best_of_n", final={"curve": curve}),
        StageRecord("evaluation", kind="evaluation", evaluation={"policies": policies}),
    ]
    return RunRecord("folder", "run", 17, "", stages)


def test_each_algorithm_has_a_row_and_the_best_of_n_a_line():
    lines = algorithms.table([part(0.0), part(0.1)])
    assert len(lines) == 2 + len(algorithms.LABELS) + 3
    assert lines[2].startswith("| `sft`, where all start | 0.750 [0.700, 0.800] | 0.550 [0.500, 0.600] |")
    assert lines[2].endswith(" | 0.00 [0.00, 0.00] |") and lines[6].startswith("| iterated DPO, 3 rounds |")
    assert lines[6].endswith(" | 4.00 [4.00, 4.00] |")
    assert lines[-1] == (
        "of 2 0.850 [0.800, 0.900] (at most 0.19 nats), of 4 0.950 [0.900, 1.000] (at most 0.64 nats), on the prompts "
        "that it was chosen for."
    )
    assert "Means over 2 seeds" in lines[-2] and "One seed." in algorithms.table([part(0.0)])[-2]
    assert algorithms.table([part(0.0)])[2].startswith("| `sft`, where all start | 0.700 | 0.500 |")


def test_the_figure_has_a_mean_for_each_and_the_curve():
    (axis,) = algorithms.draw([part(0.0), part(0.1)]).axes
    labels = axis.get_legend_handles_labels()[1]
    assert len(labels) == len(algorithms.LABELS) + 1 and labels[-1].startswith("best of n")
    assert axis.lines[1].get_ydata()[0] == pytest.approx(0.75)
