"""Filters in the report: counts, reasons, benchmarks that were met, and silence where no rows were filtered."""

import json

import pytest
import report_fixture as fixture

from pipelines.report import page as report
from pipelines.report.records import RunRecord, StageRecord
from pipelines.stages.data_filtering.report import REPORT
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend


def a_filter(name, seen, dropped, reasons, **more):
    examples = [{"origin": "web.jsonl:3", "reason": "toxic: <b>", "text": "a row"}] if dropped else []
    return {
        "name": name,
        "seen": seen,
        "dropped": dropped,
        "changed": 0,
        "reasons": reasons,
        "examples": examples,
        **more,
    }


MBPP = {"rows": 500, "looked_for": 498, "met": 12, "in_rows": 13, "mean_coverage": 0.25, "largest_coverage": 0.5}
FINAL = {
    "rows_in": 2000, "rows_out": 1500, "bad_rows": 1,
    "filters": [
        a_filter("personal_data", 2000, 487, {"personal": 480, "sensitive": 7}, found={"email": 481, "iban": 7}),
        a_filter("duplicates", 1513, 0, {}),
        a_filter("decontaminate", 1513, 13, {"test rows": 13}, benchmarks={"mbpp": MBPP}),
    ],
}  # fmt: skip


def test_summary_and_lines():
    stages = [StageRecord("clean", kind="data_filtering", final=FINAL), StageRecord("b", kind="data_filtering")]
    figures = REPORT.summarize(RunRecord("folder", "run", 17, "", stages))
    assert figures == {"data_filtering": [{"stage": "clean", **FINAL}]}
    assert REPORT.lines(figures) == [
        ("clean", "1,500 of 2,000 rows kept; dropped 487 by personal_data, 13 by decontaminate")
    ]


def test_the_card_says_what_was_dropped_and_what_of_test_sets_was_met():
    stages = [StageRecord("clean", kind="data_filtering", final=FINAL)]
    card = REPORT.card(REPORT.summarize(RunRecord("folder", "run", 17, "", stages)))
    assert card[:3] == ["## Data filtering (clean)", "", "1,500 of 2,000 rows kept."]
    assert (
        "| personal_data | 2,000 | 487 | 0 | personal 480, sensitive 7; found email 481, iban 7 |" in card
        and "| mbpp | 500 | 498 | 12 | 13 |" in card
    )


def test_the_page_has_a_section_only_where_rows_were_filtered(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    report.write(folder, reports())
    assert "Data filtering" not in (folder / "report.html").read_text(encoding="utf-8")
    stage = folder / "stages" / "clean"
    stage.mkdir()
    about = json.loads((folder / "stages" / "reward" / "stage.json").read_text())
    config = {"kind": "data_filtering", "data": {"path": "web.jsonl"}, "use": "text", "filters": ["duplicates"]}
    changed = {"name": "clean", "kind": "data_filtering", "key": "f" * 64, "config": config}
    (stage / "stage.json").write_text(json.dumps({**about, **changed}))
    (stage / "final.json").write_text(json.dumps(FINAL))
    workflow = (folder / "workflow.yaml").read_text()
    entry = "  clean: {kind: data_filtering, data: {path: w}, use: text, filters: [duplicates]}\n  evaluation:\n"
    (folder / "workflow.yaml").write_text(workflow.replace("  evaluation:\n", entry, 1))
    report.write(folder, reports())
    text = (folder / "report.html").read_text(encoding="utf-8")
    for part in (
        "Data filtering</h2>",
        "1,500 of 2,000 rows kept (75.0 %), 1 could not be read",
        "personal 480, sensitive 7; found email 481, iban 7",
        '<th scope="row">mbpp</th><td class="right">500</td><td class="right">498</td><td class="right">12</td>',
        ">50.0 %</td>",
    ):
        assert text.count(part) == 1, part
    assert text.count("toxic: &lt;b&gt;") == 2
