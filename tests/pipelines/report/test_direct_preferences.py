"""Policies that learned from preferences directly: what the report says of them, and that it is silent without any."""

import json

import pytest
import report_fixture as fixture

from pipelines.report import page as report
from pipelines.report.records import RunRecord, StageRecord
from pipelines.stages.preference_optimization.report import REPORT, words
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend

FINAL = {"loss": "ipo", "steps": 40, "eval_loss": 0.61, "accuracy": 0.75, "accuracy_ci95": [0.7, 0.8], "ceiling": 0.9}


def summary(*finals):
    stages = [StageRecord(f"dpo_{i}", kind="preference_optimization", final=final) for i, final in enumerate(finals)]
    return REPORT.summarize(RunRecord("folder", "run", 17, "", stages))


def test_summary_and_lines():
    figures = summary(FINAL, {"loss": "kto", "accuracy": None})
    first, second = figures["preference_optimization"]
    assert (first["stage"], first["loss"], first["accuracy"]) == ("dpo_0", "ipo", 0.75)
    assert second["accuracy"] is None and second["pairs"] is None
    assert REPORT.lines(figures) == [("dpo_0 accuracy", "0.750 [0.700, 0.800] on held-out pairs")]
    assert "in 75.0 % of the held-out pairs, where 90.0 % is possible on average." in words(first)
    assert words(second) == "dpo_1 (kto) measured nothing on held-out pairs."


def test_the_page_has_a_section_only_where_there_is_such_a_stage(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    report.write(folder, reports())
    assert "Direct preferences" not in (folder / "report.html").read_text(encoding="utf-8")
    stage = folder / "stages" / "dpo"
    stage.mkdir()
    about = json.loads((folder / "stages" / "reward" / "stage.json").read_text())
    config = {"kind": "preference_optimization", "from": "sft", "data": "preferences", "loss": "ipo"}
    changed = {"name": "dpo", "kind": "preference_optimization", "key": "f" * 64, "config": config}
    (stage / "stage.json").write_text(json.dumps({**about, **changed}))
    (stage / "final.json").write_text(json.dumps(FINAL))
    rows = [{"step": i, "rewards/chosen": 0.1 * i, "rewards/rejected": -0.1 * i, "loss": 0.6} for i in range(3)]
    rows.append({"step": 3, "eval_rewards/accuracies": 0.75})
    (stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    workflow = (folder / "workflow.yaml").read_text()
    entry = "  dpo: {kind: preference_optimization, from: sft, data: preferences, loss: ipo}\n  evaluation:\n"
    (folder / "workflow.yaml").write_text(workflow.replace("  evaluation:\n", entry, 1))
    report.write(folder, reports())
    text = (folder / "report.html").read_text(encoding="utf-8")
    drawings = "Implicit rewards of chosen and rejected answers under dpo by update", "Held-out accuracy by update"
    for part in ("Direct preferences</h2>", *drawings, "prefers what was preferred in 75.0 %"):
        assert text.count(part) == 1, part
    identifiers = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(identifiers) == len(set(identifiers))
