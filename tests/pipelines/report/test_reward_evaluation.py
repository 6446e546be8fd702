"""Reward models by set in the report: a table a stage, and silence where there is none."""

import json

import pytest
import report_fixture as fixture

from pipelines.report import page as report
from pipelines.report.records import RunRecord, StageRecord
from pipelines.stages.registry import reports
from pipelines.stages.reward_evaluation.report import REPORT, words

pytestmark = pytest.mark.no_backend


def a_set(name, section, accuracy):
    return {
        "name": name, "section": section, "accuracy": accuracy, "accuracy_ci95": [0.5, 0.95], "pairs": 40,
        "pair_prompts": 20, "margin": 0.3, "calibration_error": 0.05, "length_correlation": None, "dropped_rows": 3,
        "truncated_rows": 0, "seen_in_training": 7,
    }  # fmt: skip


def a_section(name, accuracy):
    return {"section": name, "accuracy": accuracy, "accuracy_ci95": [0.5, 0.95], "pairs": 80}


FINAL = {
    "reward": "runs/other/stages/reward/model", "mean_accuracy": 0.75,
    "sections": [a_section("chat", 0.9), a_section("safety", 0.6)],
    "sets": [a_set("chat", "chat", 0.9), a_set("refusals", "safety", 0.5125), a_set("borderline", "safety", 0.7)],
}  # fmt: skip


def test_summary_lines_and_words():
    stages = [StageRecord("bench", kind="reward_evaluation", final=FINAL), StageRecord("b", kind="reward_evaluation")]
    figures = REPORT.summarize(RunRecord("folder", "run", 17, "", stages))
    first, second = figures["reward_evaluations"]
    assert first == {"stage": "bench", **FINAL} and second["mean_accuracy"] is None
    assert REPORT.lines(figures) == [
        ("bench mean accuracy", "0.750"),
        ("bench: chat", "0.900 [0.500, 0.950]"),
        ("bench: safety", "0.600 [0.500, 0.950]"),
    ]
    assert words(first) == (
        "“reward” ranks 75.0 % of the pairs as they are labelled, in the mean over 2 sections that count alike; least "
        "in “safety”, 60.0 %."
    )
    assert (
        words({**first, "sections": FINAL["sections"][:1]})
        == "“reward” ranks 75.0 % of the pairs as they are labelled."
    )
    assert words(second) == "b measured nothing."


def test_the_page_has_a_section_only_where_there_is_such_a_stage(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    report.write(folder, reports())
    assert "Reward models by set" not in (folder / "report.html").read_text(encoding="utf-8")
    stage = folder / "stages" / "bench"
    stage.mkdir()
    about = json.loads((folder / "stages" / "reward" / "stage.json").read_text())
    config = {"kind": "reward_evaluation", "reward": "reward", "sets": [{"name": "chat", "data": "preferences"}]}
    changed = {"name": "bench", "kind": "reward_evaluation", "key": "f" * 64, "config": config}
    (stage / "stage.json").write_text(json.dumps({**about, **changed}))
    (stage / "final.json").write_text(json.dumps(FINAL))
    workflow = (folder / "workflow.yaml").read_text()
    entry = (
        "  bench: {kind: reward_evaluation, reward: reward, sets: [{name: chat, data: preferences}]}\n  evaluation:\n"
    )
    (folder / "workflow.yaml").write_text(workflow.replace("  evaluation:\n", entry, 1))
    report.write(folder, reports())
    text = (folder / "report.html").read_text(encoding="utf-8")
    for part in (
        "Reward models by set</h2>",
        "mean of the sections",
        "least in “safety”",
        ">51.2 %<",
        ">refusals</th>",
    ):
        assert text.count(part) == 1, part
