"""Judges of pairs in a workflow: what is said of them before anything runs, and which names are stages."""

import json

import pytest

from pipelines.host.errors import ConfigError, DataError
from pipelines.schema.pairwise import Judging
from pipelines.schema.roles import input_stages, references_of
from pipelines.workflow import loading
from pipelines.workflow.data_checks import check_data

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
model: google/gemma-3-270m
stages:
  sft: {kind: instruction_tuning, data: {task: small_world, split: sft, size: 64}}
  policy: {kind: instruction_tuning, from: sft, data: {task: small_world, split: sft, size: 64}}
  preferences:
    kind: preference_collection
    from: sft
    data: {task: small_world, split: preferences, size: 64}
    rater: {judge: {model: policy}, order: shuffled}
  judged:
    kind: side_by_side
    compare: [sft, policy]
    data:
      - {name: safety, path: rows.jsonl, prompt: prompt}
      - {name: ours, task: small_world, split: heldout, size: 8}
    judge: {model: policy}
    answer: likelihood
    rubric: rubric.txt
  asked:
    kind: side_by_side
    data: {path: rows.jsonl}
    judge: {base_url: http://localhost:8000/v1, model: sft}
"""


@pytest.fixture
def load(tmp_path):
    rows = [{"prompt": f"p {i}", "chosen": "yes", "rejected": "no"} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rubric.txt").write_text("Be brief.")

    def load(old="", new=""):
        assert old in WORKFLOW
        (tmp_path / "w.yaml").write_text(WORKFLOW.replace(old, new))
        return loading.load(tmp_path / "w.yaml")

    return load


def test_a_judge_is_an_input_and_what_an_endpoint_calls_its_model_is_none(load):
    loaded = load()
    stages = loaded.workflow.stages
    assert set(input_stages(stages["judged"], set(stages))) == {"policy", "sft"}
    assert input_stages(stages["asked"], set(stages)) == [] and references_of(stages["asked"]) == []
    assert set(input_stages(stages["preferences"], set(stages))) == {"policy", "sft"}
    assert isinstance(stages["preferences"].rater, Judging) and stages["preferences"].rater.order == "shuffled"
    assert (stages["judged"].reads(), stages["asked"].reads()) == (("prompt",), ("preference",))
    assert stages["judged"].encoding().model == "sft" and stages["asked"].encoding() is None
    check_data(loaded)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("judge: {model: policy}\n", "judge: {model: polcy}\n", "'polcy' is neither an earlier stage nor a model"),
        ("judge: {model: policy}\n", "judge: longst\n", "expected longest or shortest or random, got .*'longst'"),
        ("judge: {model: policy}\n    answer: likelihood", "judge: longest\n    answer: reasoning",
         "longest does not reason; expected a model as judge, or likelihood"),
        ("judge: {model: policy}\n", "judge: longest\n", "longest reads none; expected a model as judge, or no rubric"),
        ("{model: policy}\n    answer: likelihood", "{model: policy, max_length: 256}\n    answer: reasoning",
         "512 leaves no room for a question; judge.max_length is 256"),
        ("compare: [sft, policy]", "compare: [sft, sft]", "a policy is named twice: sft, sft"),
        ("compare: [sft, policy]", "compare: [sft]", "expected at least 2 items, got 1"),
        ("compare: [sft, policy]", "samples_kept: 3", "the built-in task has prompts alone; expected policies"),
        ("name: ours", "name: safety", "two sources are called 'safety'; expected a name for each"),
        ("    compare: [sft, policy]", "    compare: [sft, policy]\n    max_new_tokens: 4096", "leaves no room for a"),
        ("data: {path: rows.jsonl}\n", "data: {path: rows.jsonl}\n    ratings: rubric.txt\n",
         "the rows say already what people prefer"),
        ("model: sft}", "model: sft, key_variable: NO_SUCH_KEY}",
         "the environment variable NO_SUCH_KEY is not set; put the key into it"),
        ("http://localhost:8000/v1", "localhost:8000", "base_url"),
        ("kind: side_by_side\n    compare", "kind: llm_judge\n    compare", "Here that is `kind: side_by_side`"),
        ("order: shuffled", "ordr: shuffled", "unknown key 'ordr'. Did you mean 'order'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_beforehand(load, old, new, words, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match=words):
        load(old, new)


def test_a_rubric_and_rows_must_be_there(load, tmp_path):
    with pytest.raises(DataError, match=r"no file .*nowhere\.txt"):
        check_data(load("rubric: rubric.txt", "rubric: nowhere.txt"))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "chosen": "same", "rejected": "same"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*chosen equals rejected"):
        check_data(load())
