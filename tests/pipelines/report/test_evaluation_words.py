"""What the report says of an evaluation: whose judge a win rate is, and what its prompts were trained on by."""

import json
import shutil

import numpy as np
import pytest
import report_fixture as fixture
from report_page import Page, written

from pipelines.measures.judges import compare, difference_with_interval, mean_with_interval
from pipelines.report import headline
from pipelines.report.records import StageRecord
from pipelines.stages.evaluation.report.judge import judge_sentence, trained_on
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend


@pytest.fixture(autouse=True)
def _words_alone(monkeypatch):
    """These tests read words; drawing takes most of a page's time."""
    monkeypatch.setattr(
        "pipelines.report.svg.to_svg", lambda figure, prefix, label: f"<svg aria-label='{prefix}'></svg>"
    )


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
        (
            "minimum of reward_model:reward, reward_model:second",
            "the minimum of the reward models “reward” and “second”, of which policy was trained on one or more",
            "Judged by the minimum of the reward models “reward” and “second”, of which policy was trained on one or "
            "more: a win under it says that training reached its aim, not that the answers are better.",
        ),
        (
            "mean of reward_model:../runs/other/stages/third/model, reward_model:second",
            "the mean of the reward models “third” and “second”",
            "Judged by the mean of the reward models “third” and “second”.",
        ),
        ("function:answer_format", "the function “answer_format”", "Judged by the function “answer_format”."),
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
    stages[2] = StageRecord(
        "first", kind="policy_optimization", config={"from": "sft", "reward": {"ensemble": ["other", "reward"]}}
    )
    assert list(trained_on("reward_model:reward", names, stages).values()) == [False, True, True, None, None]
    said = judge_sentence("reward_model:reward", {"first": True, "second": True, "sft": False})
    assert said.startswith("Judged by the reward model “reward” that first and second were trained on:")


def test_a_policy_that_was_trained_on_a_member_was_trained_on_the_judge():
    stages = [
        *(StageRecord(name, kind="reward_modeling") for name in ("reward", "second", "third")),
        StageRecord("sft", kind="instruction_tuning"),
        StageRecord("policy", kind="policy_optimization", config={"from": "sft", "reward": "reward"}),
    ]
    for judge, expected in (
        ("mean of reward_model:second, reward_model:reward", [False, True]),
        ("mean of reward_model:second, reward_model:third", [False, False]),
        ("mean of reward_model:second, reward_model:../other/model", [None, None]),
        ("mean of reward_model:../other/model, reward_model:reward", [None, True]),
    ):
        assert list(trained_on(judge, ["sft", "policy"], stages).values()) == expected
    said = judge_sentence("mean - 1 variance of reward_model:second, reward_model:third", {"policy": False})
    assert said == "Judged by the mean - 1 variance of other reward models “second” and “third”."


def test_the_scores_of_a_judging_ensembles_members_are_shown_for_each_policy(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    file = folder / "stages" / "evaluation" / "evaluation.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    found["judge"] = "mean of reward_model:reward, reward_model:second"
    for policy in found["policies"].values():
        policy["judge_parts"] = {
            part: {"mean": mean, "ci95": [mean - 0.1, mean + 0.1]}
            for part, mean in (("second", 0.625), ("ensemble_std", 0.375))
        }
    file.write_text(json.dumps(found), encoding="utf-8")
    page = Page(written(folder))
    shown = {item["data-path"] for item in page.data}
    for name in found["policies"]:
        assert f"/evaluation/policies/{name}/judge_parts/second/mean" in shown
        assert f"/evaluation/policies/{name}/judge_parts/ensemble_std/ci95" in shown
    assert "second's score" in page.section_text["win_rates"]
    assert "members' deviation" in page.section_text["win_rates"]


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


def judged_by_right(folder, changes=None):
    """The made-up run with another judge, and changes in its `evaluation.json`."""
    folder = fixture.write_run(folder)
    file = folder / "stages" / "evaluation" / "evaluation.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    found["judge"] = "exact_answer"
    for policy in found["policies"].values():
        del policy["gold"], policy["gold_parts"]
    for pair in found["pairs"]:
        del pair["difference"]["gold"], pair["difference"]["gold_parts"]
    if changes:
        changes(found)
    file.write_text(json.dumps(found), encoding="utf-8")
    page = Page(written(folder))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return page, headline.lines(summary, reports()), summary


def test_of_a_judge_that_says_what_is_right_the_shares_of_right_answers_are_the_headline(tmp_path):
    page, lines, _ = judged_by_right(tmp_path / "run")
    assert page.heading == (
        "policy is level with sft in right answers: 73.0 % [70.0, 76.0] to 71.0 % [68.0, 74.0] of 512 prompts; "
        "difference +0.020 [−0.001, 0.043]"
    )
    assert "Judged by whether the answer is right" in page.section_text["win_rates"]
    shares = [line for line in lines if line.startswith("right answers")]
    assert shares[0].split(None, 2)[2] == "policy 73.0 % [70.0, 76.0], sft 71.0 % [68.0, 74.0] of 512 prompts"
    assert any(
        line.startswith("difference") and line.endswith("+0.020 [−0.001, 0.043], policy against sft") for line in lines
    )
    assert not any("win rate" in line for line in lines)
    shown = [item["data-path"] for item in page.data][:8]
    assert "/evaluation/policies/policy/accuracy_ci95" in shown and "/evaluation/difference/accuracy/ci95" in shown
    assert "/evaluation/win_rate" not in shown


@pytest.mark.parametrize(
    ("ends", "relation"), [([0.01, 0.03], "beats"), ([-0.03, -0.01], "loses to"), (None, "against")]
)
def test_the_difference_on_the_same_prompts_decides_who_is_more_often_right(tmp_path, ends, relation):
    def change(found):
        for pair in found["pairs"]:
            pair["difference"]["accuracy"]["ci95"] = ends

    page, *_ = judged_by_right(tmp_path / "run", change)
    assert page.heading.startswith(f"policy {relation} sft in right answers: ")


def test_without_right_answers_the_win_rate_stays_the_headline(tmp_path):
    def change(found):
        found["policies"]["sft"]["accuracy"] = None

    page, lines, _ = judged_by_right(tmp_path / "run", change)
    assert page.heading.startswith("policy beats sft, judged by the function “exact_answer”: 71 % [68, 74]")
    assert any(line.startswith("win rate") for line in lines)


def test_four_ties_have_no_interval_without_width():
    """Two policies that are both wrong four times, under each kind of judge."""
    same, groups = np.zeros(4), np.arange(4)
    rates = compare(same, same, groups, 3, "evaluation")
    shares = mean_with_interval(same, groups, (0.0, 1.0))
    difference = difference_with_interval(same, same, groups, (0.0, 1.0))
    # Wilson's interval of 0 of 4, and of 4 halves, where what is not seen lies at both bounds.
    z = 1.959964
    assert rates["win_rate_ci95"] == pytest.approx([0.5 / (1 + z**2 / 4), 1 - 0.5 / (1 + z**2 / 4)], abs=1e-6)
    assert shares["ci95"] == pytest.approx([0.0, 1 - 1 / (1 + z**2 / 4)], abs=1e-6)
    assert difference["ci95"] == pytest.approx([1 / (1 + z**2 / 4) - 1, 1 - 1 / (1 + z**2 / 4)], abs=1e-6)
    for noise in (0.0, 1e-7):
        scores = np.array([0.3, -0.2, 1.0, 0.0]) + noise * np.arange(4)
        assert difference_with_interval(scores, scores + noise * np.arange(4), groups, None)["ci95"] is None
