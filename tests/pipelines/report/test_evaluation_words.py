"""What the report says of an evaluation: whose judge a win rate is, and what its prompts were trained on by."""

import json
import shutil

import pytest
import report_fixture as fixture
from report_page import Page, written

from pipelines.report import headline
from pipelines.report.records import StageRecord
from pipelines.stages.evaluation.report.judge import judge_sentence, trained_on
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("judge", "named", "said"),
    [
        ("gold", "gold", "Judged by gold."),
        (
            "reward_model:reward",
            "the reward model “reward” that policy was trained on",
            "Judged by the reward model “reward” that policy was trained on: a win under it says that training reached "
            "its aim, not that the answers are better.",
        ),
        ("reward_model:second", "another reward model, “second”", "Judged by another reward model, “second”."),
        (
            "reward_model:../runs/other/stages/third/model",
            "the reward model “third”",
            "Judged by the reward model “third”.",
        ),
        ("exact_answer", "the function “exact_answer”", "Judged by the function “exact_answer”."),
    ],
)
def test_it_is_said_whose_judge_a_win_rate_is(tmp_path, judge, named, said):
    folder = fixture.write_run(tmp_path / "run")
    shutil.copytree(folder / "stages" / "reward", folder / "stages" / "second")
    workflow = folder / "workflow.yaml"
    workflow.write_text(workflow.read_text(encoding="utf-8").replace("  policy:", "  second: {}\n  policy:", 1))
    file = folder / "stages" / "evaluation" / "evaluation.json"
    file.write_text(
        file.read_text(encoding="utf-8").replace('"judge": "gold"', f'"judge": "{judge}"'), encoding="utf-8"
    )
    page = Page(written(folder))
    assert f"policy beats sft, judged by {named}: 71 %" in page.heading
    assert said in page.section_text["win_rates"]
    lines = headline.lines(json.loads((folder / "summary.json").read_text(encoding="utf-8")), reports())
    assert any(line.startswith("win rate") and f"policy against sft, judged by {named}" in line for line in lines)
    assert any(line.startswith("gold") and "+0.140 [0.119, 0.163], policy against sft" in line for line in lines)
    assert any(line.startswith("gold's parts") and "right +0.020 [" in line for line in lines)
    assert any(line.startswith("reward regret") and "0.041 [0.029, 0.058]" in line for line in lines)


def test_a_policy_that_came_from_a_trained_one_was_trained_on_its_judge():
    stages = [
        StageRecord("reward", kind="reward_modeling"),
        StageRecord("sft", kind="instruction_tuning"),
        StageRecord("first", kind="policy_optimization", config={"from": "sft", "reward": [{"reward": "reward"}]}),
        StageRecord("second", kind="policy_optimization", config={"from": "first", "reward": "exact_answer"}),
        StageRecord("elsewhere", kind="instruction_tuning", config={"from": "../other/model"}),
    ]
    names = ["sft", "first", "second", "elsewhere", "../other/model"]
    assert list(trained_on("reward_model:reward", names, stages).values()) == [False, True, True, None, None]
    assert list(trained_on("function:exact_answer", names, stages).values()) == [False, False, True, None, None]
    said = judge_sentence("reward_model:reward", {"first": True, "second": True, "sft": False})
    assert said.startswith("Judged by the reward model “reward” that first and second were trained on:")


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"sft": (0, 0), "policy": (0, 0)}, "None of them was trained on by sft, policy."),
        ({"sft": (2, 3), "policy": (0, 0)}, "Some were trained on: 3 by sft (2 letter by letter)."),
        ({"sft": None, "policy": (0, 0)}, "None of them was trained on by policy."),
        ({"sft": None}, ""),
    ],
)
def test_prompts_seen_in_training_are_named(tmp_path, seen, words):
    folder = fixture.write_run(tmp_path / "run", stages=["evaluation"])
    file = folder / "stages" / "evaluation" / "evaluation.json"
    keys = ("same_text", "same_content")
    found = json.loads(file.read_text(encoding="utf-8"))
    found["seen_elsewhere"] = {name: counts and dict(zip(keys, counts, strict=True)) for name, counts in seen.items()}
    file.write_text(json.dumps(found), encoding="utf-8")
    said = Page(written(folder)).section_text["win_rates"]
    assert words in said and ("trained on" in said) == bool(words)
