"""Side by side in the report: who won, how sound the judge is, people beside rules, and silence where there is none."""

import json

import pytest
import report_fixture as fixture
from report_page import Page

from pipelines.report import page as report
from pipelines.report.records import RunRecord, StageRecord
from pipelines.stages.registry import reports
from pipelines.stages.side_by_side.report import REPORT
from pipelines.stages.side_by_side.report.words import health_words, judge_words, people_words

pytestmark = pytest.mark.no_backend


def agreement(value, kappa=0.2):
    return {
        "pairs": 80, "agreement": value, "agreement_ci95": [value - 0.1, value + 0.1], "agreement_decided": value,
        "decided": 70, "kappa": kappa, "kappa_ci95": [kappa - 0.2, kappa + 0.2],
    }  # fmt: skip


def figures(win, people=None, bias=0.1):
    return {
        "pairs": 100, "win_rate": win, "wins": win - 0.1, "tie_rate": 0.2, "loss_rate": 0.9 - win,
        "win_rate_ci95": [win - 0.09, win + 0.09], "length_controlled": win - 0.05, "length_controlled_ci95": None,
        "position_bias": bias, "position_bias_ci95": [bias - 0.1, bias + 0.1], "contradictions": 0.25,
        "longer_wins": 0.7, "longer_wins_ci95": [0.6, 0.8], "length_correlation": 0.3, "identical": 2,
        "odds_win_rate": None, "odds_win_rate_ci95": None, "people": people,
    }  # fmt: skip


PEOPLE = {
    "rates": {"win_rate": 0.6, "wins": 0.5, "tie_rate": 0.2, "loss_rate": 0.3, "win_rate_ci95": [0.5, 0.7]},
    "agreement": {
        "judge": agreement(0.66), "longest": agreement(0.62), "shortest": agreement(0.38), "random": agreement(0.5),
    },
}  # fmt: skip
COMPARISON = {
    "policy": "policy", "baseline": "sft", "asked": 196, "unreadable": 3, "too_long": 1,
    "sets": {"safety": figures(0.7), "<b>ours</b>": figures(0.5), "all": figures(0.6, PEOPLE)},
}  # fmt: skip
FINAL = {
    "judge": "gemma-3-27b at http://localhost/v1", "answer": "reasoning", "order": "both", "prompts": 100,
    "dropped_prompts": 0, "comparisons": [COMPARISON],
}  # fmt: skip


def test_headline_and_card():
    found = REPORT.summarize(RunRecord("folder", "run", 17, "", [StageRecord("s", kind="side_by_side", final=FINAL)]))
    assert REPORT.verdict(found) == (
        "policy has a win rate of 60.0 % [51.0, 69.0] against sft on 100 prompts, says gemma-3-27b at http://localhost/v1"
    )
    card = REPORT.card(found)
    assert card[0] == "## Side by side (s)" and judge_words({"stage": "s", **FINAL}) in card
    assert "| policy | sft | safety | 100 | 60.0 % | 20.0 % | 20.0 % | 70.0 % [61.0, 79.0] | 65.0 % |" in card
    assert f"- {people_words(COMPARISON)}" in card
    for change in ({"judge": "longest"}, {"comparisons": [{**COMPARISON, "policy": "chosen"}]}, {"comparisons": None}):
        silent = StageRecord("s", kind="side_by_side", final={**FINAL, **change})
        assert REPORT.verdict(REPORT.summarize(RunRecord("folder", "run", 17, "", [silent]))) is None


def test_summary_lines_and_seeds():
    stages = [StageRecord("judged", kind="side_by_side", final=FINAL), StageRecord("b", kind="side_by_side")]
    found = REPORT.summarize(RunRecord("folder", "run", 17, "", stages))
    assert found["side_by_side"][0] == {"stage": "judged", **FINAL} and found["side_by_side"][1]["judge"] is None
    lines = dict(REPORT.lines(found))
    assert lines["judged: win rate"] == (
        "0.600 [0.510, 0.690], policy against sft, judged by gemma-3-27b at http://localhost/v1"
    )
    assert lines["judged: length-controlled"] == "0.550"
    assert lines["judged: agreement with people"].startswith("judge 0.660 [0.560, 0.760], longest 0.620")
    rows = REPORT.over_seeds(found)
    assert [row.label for row in rows] == [
        "judged: policy against sft: win rate", "judged: policy against sft: length-controlled win rate",
    ]  # fmt: skip
    assert rows[0].path == ("side_by_side", 0, "comparisons", 0, "sets", "all", "win_rate")


def test_words_of_the_judge():
    said = judge_words(FINAL)
    assert "in both orders. A pair is won where both orders say so" in said and "family of what it judges" in said
    assert "family" not in judge_words({**FINAL, "judge": "other at http://localhost/v1"})
    assert "family" not in judge_words({**FINAL, "comparisons": [{**COMPARISON, "policy": "chosen"}]})
    assert "contradicting" not in judge_words({**FINAL, "order": "shuffled"})
    assert judge_words({**FINAL, "judge": "longest"}) == (
        "The judge is the rule “longest”, which reads nothing: a figure to compare others with."
    )


def test_words_of_its_health():
    assert health_words(COMPARISON) == (
        "25.0 % of the pairs asked in both orders had contradicting verdicts. 3 answers without a verdict counted as a "
        "tie. 1 question too long for it counted as a tie. 2 pairs with equal answers counted as a tie, unasked."
    )
    biased = {
        **COMPARISON,
        "unreadable": 0,
        "too_long": 0,
        "sets": {"all": {**figures(0.5, bias=-0.6), "identical": 0}},
    }
    assert health_words(biased).startswith("It prefers whichever answer is shown second, so the win rate says little.")


@pytest.mark.parametrize(
    ("value", "relation"),
    [(0.66, "no more often, for all that can be told, than"), (0.9, "more often than"), (0.4, "less often than")],
)
def test_words_of_people_name_the_best_rule(value, relation):
    people = {**PEOPLE, "agreement": {**PEOPLE["agreement"], "judge": agreement(value)}}
    said = people_words({**COMPARISON, "sets": {"all": figures(0.6, people)}})
    assert f"pairs, {relation} the rule “longest” (62.0 %), which reads nothing." in said
    assert people_words({**COMPARISON, "sets": {"all": figures(0.6)}}) == ""


def test_the_page(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    report.write(folder, reports())
    assert "side_by_side" not in Page((folder / "report.html").read_text(encoding="utf-8")).sections
    stage = folder / "stages" / "judged"
    stage.mkdir()
    (stage / "stage.json").write_text(json.dumps({"kind": "side_by_side"}))
    (stage / "final.json").write_text(json.dumps(FINAL))
    workflow = (folder / "workflow.yaml").read_text()
    (folder / "workflow.yaml").write_text(workflow + "  judged: {kind: side_by_side}\n")
    report.write(folder, reports())
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    text = page.section_text["side_by_side"]
    for expected in (
        "70.0 %",
        "<b>ours</b>",
        "Cohen’s kappa",
        "people",
        "shortest",
        "38.0 %",
        "contradicting verdicts",
    ):
        assert expected in text, expected
