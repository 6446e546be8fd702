"""Table and figure of the run with the KL term and without, from made-up curves."""

import numpy as np
import pytest

from benchmarks import overoptimization
from pipelines.report.records import RunRecord, StageRecord

pytestmark = pytest.mark.no_backend

GOLD = {
    "with_kl": [[0.7, 0.8, 0.9], [0.7, 0.9, 0.85], [0.7, 0.84, 0.9]],
    "without_kl": [[0.7, 0.9, 0.5], [0.7, 0.8, 0.4], [0.86, 0.7, 0.6]],
    "gold_reward": [[0.7, 0.9, 0.95]] * 3,
}


def run_of():
    parts = []
    for seed in range(3):
        stages, policies = [], {}
        for name, curves in GOLD.items():
            rows = [
                {"step": 5 * look, "eval_gold": gold, "eval_reward": look + seed, "eval_kl_sequence": 2.0 * look}
                for look, gold in enumerate(curves[seed])
            ]
            stages.append(StageRecord(name, metrics=rows))
            end = curves[seed][-1]
            policies[name] = {"gold": {"mean": end}, "gold_parts": {"right": {"mean": end}}, "kl_sequence": 4.0 + seed}
        stages.append(StageRecord("evaluation", evaluation={"policies": policies}))
        parts.append(RunRecord("folder", "run", seed, "", stages))
    return RunRecord("folder", "run", 0, "", [], parts=parts)


def test_a_peak_is_read_where_the_others_are_highest():
    # Means of the others of the first seed: 0.78, 0.75, 0.5. Its own peak of 0.9 is at the second look.
    found = overoptimization.peak_of_the_others(np.array(GOLD["without_kl"]))
    assert found.tolist() == [0.7, 0.8, 0.7]


def test_the_table_and_the_figure():
    run = run_of()
    curves = {name: overoptimization.curves_of(run, name) for name in GOLD}
    lines = overoptimization.table(run, curves)
    assert lines[2] == (
        "| with the KL term | 3.00 [2.00, 4.00] | 0.900 [0.900, 0.900] | 0.883 [0.850, 0.900] | 0.883 [0.850, 0.900] | "
        "0.883 [0.850, 0.900] | 5.0 [4.0, 6.0] |"
    )
    said = " ".join(lines[5:])
    assert "is 0.383 [0.300, 0.450], above 0 in 3 of 3 (one-sided sign test: p = 0.125)" in said
    assert "by 0.233 [0.100, 0.400], above 0 in 3 of 3" in said
    figure = overoptimization.draw(curves)
    assert [len(axis.lines) for axis in figure.axes] == [8, 12]


def test_the_page_has_a_place_for_the_table():
    text = overoptimization.PAGE.read_text(encoding="utf-8")
    assert text.count(overoptimization.BEGIN) == 1 and overoptimization.END in text.partition(overoptimization.BEGIN)[2]
