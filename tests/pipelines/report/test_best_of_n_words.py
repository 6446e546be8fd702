"""What stands beside the best of n: other controls and the policy, each with the prompts that it was measured on."""

from pathlib import Path

import pytest
import report_fixture as fixture

from pipelines.report.records import RunRecord, StageRecord, read_run
from pipelines.stages.best_of_n.report import REPORT

pytestmark = pytest.mark.no_backend

CURVE = [
    {
        "n": n,
        "kl_bound": kl,
        "reward": {"mean": gold, "ci95": [0, 1]},
        "gold": {"mean": gold, "ci95": [gold - 0.01, gold + 0.02]},
    }
    for n, kl, gold in ((4, 0.636, 0.86), (1, 0.0, 0.74), (8, 1.204, 0.9))
]
BEST = StageRecord("best", kind="best_of_n", config={"from": "sft"}, final={"curve": CURVE})
POLICY = StageRecord(
    "policy",
    metrics=[
        {"step": step, "eval_kl_sequence": step / 10, "eval_gold": gold, "eval_gold_ci95_low": gold - 0.04,
         "eval_gold_ci95_high": gold + 0.03}
        for step, gold in ((20, 0.88), (0, 0.69))
    ],
)  # fmt: skip


def evaluation(reference="sft", **policies):
    return StageRecord("evaluation", kind="evaluation", evaluation={"reference": reference, "policies": policies})


def section(*stages):
    run = RunRecord(Path("run"), "run", 17, "", list(stages))
    return REPORT.sections[0].values(run, REPORT.summarize(run))


SFT = {"gold": {"mean": 0.73, "ci95": [0.72, 0.74]}, "kl_sequence": 0.0}
CHOSEN = {"gold": {"mean": 0.88, "ci95": [0.87, 0.89]}, "kl_sequence": 1.57}


def test_controls_stand_beside_it_with_interval_kl_and_their_own_start():
    shown = section(BEST, POLICY, evaluation(sft=SFT, chosen=CHOSEN, silent={"kl_sequence": 2.0}))
    assert shown["findings"] == [
        "Best of 8 reaches gold 0.900 [0.890, 0.920] at no more than 1.20 nats a response and without training, where "
        "best of 1 has 0.740 [0.730, 0.760].",
        "On the prompts of the evaluation gold is, with the KL a response: sft 0.730 [0.720, 0.740] at 0 nats, "
        "chosen 0.880 [0.870, 0.890] at 1.57 nats.",
    ]
    gold = shown["drawings"][-1]
    assert all(f">{label}<" in gold for label in ("chosen, evaluated", "policy, in training"))
    assert "silent" not in "".join(shown["drawings"])


def test_a_kl_to_another_model_is_not_drawn_along_the_same_axis():
    shown = section(BEST, POLICY, evaluation("pretrained", chosen=CHOSEN))
    assert "chosen" not in "".join(shown["drawings"])
    assert shown["findings"][1:] == ["policy ended at 0.880 [0.840, 0.910] and 2.00 nats, on its own held-out prompts."]


def test_without_gold_there_is_nothing_to_say():
    curve = [{name: value for name, value in point.items() if name != "gold"} for point in CURVE]
    best = StageRecord("best", kind="best_of_n", config={"from": "sft"}, final={"curve": curve})
    assert section(best, POLICY, evaluation(sft=SFT))["findings"] == []


def test_a_run_is_read_with_its_controls(tmp_path):
    run = read_run(fixture.write_run(tmp_path))
    shown = REPORT.sections[0].values(run, REPORT.summarize(run))
    assert "control, evaluated" in "".join(shown["drawings"])


def test_where_all_rewards_are_alike_points_have_no_interval():
    curve = [{**point, "reward": {"mean": 0.0, "ci95": None}} for point in CURVE]
    best = StageRecord("best", kind="best_of_n", config={"from": "sft"}, final={"curve": curve})
    assert len(section(best, POLICY, evaluation(sft=SFT))["drawings"]) == 2
