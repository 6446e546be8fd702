"""Sets of preferences in a workflow: what is said of them before anything runs."""

import json

import pytest

from pipelines.host.errors import ConfigError, DataError
from pipelines.schema.roles import input_stages
from pipelines.workflow import loading
from pipelines.workflow.data_checks import check_data

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
model: google/gemma-3-270m
stages:
  sft: {kind: instruction_tuning, data: {task: small_world, split: sft, size: 64}}
  preferences: {kind: preference_collection, from: sft, data: {task: small_world, split: preferences, size: 64}}
  reward: {kind: reward_modeling, from: sft, data: preferences}
  bench:
    kind: reward_evaluation
    reward: reward
    sets:
      - {name: chat, data: preferences}
      - {name: refusals, section: safety, data: {path: rows.jsonl}}
      - {name: borderline, section: safety, data: {path: rows.jsonl, rows: [0, 1]}}
"""


@pytest.fixture
def load(tmp_path):
    rows = [{"prompt": f"p {i}", "chosen": "yes", "rejected": "no"} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(old="", new=""):
        assert old in WORKFLOW
        (tmp_path / "w.yaml").write_text(WORKFLOW.replace(old, new))
        return loading.load(tmp_path / "w.yaml")

    return load


def test_sets_are_inputs_and_files_as_anywhere(load, tmp_path):
    loaded = load()
    config = loaded.workflow.stages["bench"]
    assert input_stages(config, set(loaded.workflow.stages)) == ["reward", "preferences"]
    assert config.sets[1].data.path == str(tmp_path / "rows.jsonl")
    check_data(loaded)


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("name: borderline", "name: chat", "13:16", "two sets are called 'chat'; expected a name for each"),
        ("section: safety, data: {path: rows.jsonl}", "section: chat, data: {path: rows.jsonl}", "12:35",
         "'chat' is a set that is a section of its own; give that set the section too"),
        ("reward: reward\n", "reward: sft\n", "9:13", "expected a stage of kind reward_modeling"),
        ("data: preferences}\n      -", "data: reward}\n      -", "11:28", "stage 'reward' is of kind reward_modeling"),
        ("name: chat, data", "nme: chat, data", "11:10", "unknown key 'nme'. Did you mean 'name'?"),
        ("kind: reward_evaluation", "kind: rewardbench", "8:11", "Here that is `kind: reward_evaluation`."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(load, tmp_path, old, new, place, words):
    with pytest.raises(ConfigError) as caught:
        load(old, new)
    assert any(
        line.startswith(f"{tmp_path}/w.yaml:{place}: ") and words in line for line in str(caught.value).splitlines()
    )


def test_rows_of_a_set_are_read_before_anything_runs(load, tmp_path):
    loaded = load()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "chosen": "yes"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*rejected"):
        check_data(loaded)
