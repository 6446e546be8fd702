"""A run with two reward models, one of which only judges: both are shown, and the one that trained the policy leads."""

import json

import pytest
import report_fixture as fixture

from pipelines.report import page as report
from pipelines.report.records import RunRecord, StageRecord
from pipelines.stages.registry import reports
from pipelines.stages.reward_modeling.report import REPORT, rewarding

pytestmark = pytest.mark.no_backend

REWARD = StageRecord("reward", kind="reward_modeling", final={"accuracy": 0.8, "ceiling": 0.9, "regret": 0.04})
JUDGE = StageRecord("judge", kind="reward_modeling", final={"accuracy": 0.5})
POLICY = StageRecord("policy", kind="policy_optimization", config={"from": "sft", "reward": "reward"})
EVALUATION = StageRecord("evaluation", kind="evaluation", config={"compare": ["policy"], "judge": "reward_model:judge"})


def summary(*stages):
    return REPORT.summarize(RunRecord("folder", "run", 17, "", list(stages)))


def test_a_model_that_only_judges_does_not_speak_for_the_run():
    figures = summary(REWARD, JUDGE, POLICY, EVALUATION)
    assert rewarding([REWARD, JUDGE, POLICY, EVALUATION]) == ["reward"]
    assert (figures["reward_model"]["stage"], figures["reward_model"]["accuracy"]) == ("reward", 0.8)
    assert [one["stage"] for one in figures["reward_models"]] == ["reward", "judge"]
    assert REPORT.lines(figures) == [
        ("reward accuracy", "0.800, ceiling 0.900"),
        ("reward regret", "0.040"),
        ("judge accuracy", "0.500"),
    ]
    assert REPORT.tiles(figures)[0].label == "accuracy of reward"


def test_each_member_of_an_ensemble_rewards():
    policy = StageRecord("policy", kind="policy_optimization", config={"reward": {"ensemble": ["reward", "second"]}})
    second = StageRecord("second", kind="reward_modeling", final={"accuracy": 0.7})
    stages = [REWARD, second, JUDGE, policy, EVALUATION]
    assert rewarding(stages) == ["reward", "second"]
    assert summary(*stages)["reward_model"]["stage"] == "second"


def test_members_that_only_judge_do_not_reward():
    judge = StageRecord("evaluation", kind="evaluation", config={"judge": {"ensemble": ["reward", "judge"]}})
    assert rewarding([REWARD, JUDGE, POLICY, judge]) == ["reward"]


def test_the_last_model_leads_where_none_rewards_and_one_alone_needs_no_name():
    assert summary(REWARD, JUDGE)["reward_model"]["stage"] == "judge"
    alone = summary(REWARD, POLICY)
    assert REPORT.lines(alone)[0] == ("reward model accuracy", "0.800, ceiling 0.900")
    assert REPORT.tiles(alone)[0].label == "reward model accuracy"


def test_the_page_shows_both(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    judge = folder / "stages" / "judge"
    judge.mkdir()
    about = json.loads((folder / "stages" / "reward" / "stage.json").read_text())
    (judge / "stage.json").write_text(json.dumps({**about, "name": "judge", "key": "f" * 64}))
    final = json.loads((folder / "stages" / "reward" / "final.json").read_text())
    (judge / "final.json").write_text(json.dumps({**final, "accuracy": 0.625}))
    workflow = (folder / "workflow.yaml").read_text()
    (folder / "workflow.yaml").write_text(
        workflow.replace("  evaluation:\n", "  judge: {kind: reward_modeling}\n  evaluation:\n", 1)
    )
    report.write(folder, reports())
    text = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("<h3>reward</h3>", "<h3>judge, by which no stage", "It ranks 80.3 %", "It ranks 62.5 %"):
        assert text.count(words) == 1, words
    for row in ("correlation of reward and length", "token ids that their text had in training</th>"):
        assert text.count(row) == 2, row
    identifiers = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(identifiers) == len(set(identifiers))
