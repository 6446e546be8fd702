"""A reward of a user's own in the keys: its source counts for the stages that name it, and for nothing else."""

import json

import pytest

from pipelines import cli
from pipelines.host.errors import ConfigError
from pipelines.run import planning, runner
from pipelines.workflow import loading

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: own
seed: 3
backend: jax
model: {config: {num_layers: 2}}
stages:
  base:
    kind: pretraining
    data: {path: texts.jsonl, text: text}
  best:
    kind: best_of_n
    from: base
    reward: polite
    data: {task: small_world, split: rl, size: 9}
  tuned:
    kind: instruction_tuning
    from: base
    data: best
  other:
    kind: best_of_n
    from: base
    reward: answer_format
    data: {task: small_world, split: rl, size: 9}
"""


@pytest.fixture
def write(tmp_path, stand_ins):
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "w.yaml").write_text(WORKFLOW)

    def write(source="def polite(completions): return [1]\n", name="mine.py"):
        (tmp_path / name).write_text(source)
        return tmp_path / name

    return write


@pytest.fixture
def start(tmp_path, write):
    """A function that runs the workflow; returns the stages that ran."""

    def start(*plugins, in_process=True):
        said = []
        loaded = loading.load(tmp_path / "w.yaml", plugins=plugins)
        runner.run(loaded, tmp_path / "run", in_process=in_process, quiet=True, say=said.append)
        return [line.split()[1] for line in said if "because" in line]

    return start


def reasons(tmp_path, *plugins):
    loaded = loading.load(tmp_path / "w.yaml", plugins=plugins)
    planned = planning.plan(loaded.workflow, loaded.base_folder, tmp_path / "run", loaded.user_functions)
    return {stage.name: stage.reasons for stage in planned if stage.reasons}


def test_a_changed_file_runs_what_names_it_and_what_follows(start, write, tmp_path):
    file = write()
    assert start(file) == ["base", "best", "tuned", "other"]
    assert reasons(tmp_path, file) == {}
    write("def polite(completions): return [2]\n")
    assert reasons(tmp_path, file) == {"best": ["function changed: polite"], "tuned": ["input changed: best"]}
    assert start(file) == ["best", "tuned"]
    assert start(file) == []


def test_a_moved_file_is_the_same_and_unused_ones_do_not_count(start, write, tmp_path):
    start(write())
    moved, unused = write(name="elsewhere.py"), write("def unused(completions): pass\n", "unused.py")
    assert reasons(tmp_path, moved, unused) == {}


def test_keys_hold_digests_of_what_the_stage_names(start, write, tmp_path):
    file = write()
    start(file)
    lock = json.loads((tmp_path / "run/workflow.lock").read_text())["stages"]
    (digest,) = lock["best"]["functions"].values()
    assert len(digest) == 64
    assert {name: stage["functions"] for name, stage in lock.items()} == {
        "base": {}, "best": {"polite": digest}, "tuned": {}, "other": {},
    }  # fmt: skip
    abouts = {name: json.loads((tmp_path / f"run/stages/{name}/stage.json").read_text()) for name in lock}
    assert {name: set(about["user_functions"]) for name, about in abouts.items()} == {
        "base": set(), "best": {"polite"}, "tuned": set(), "other": set(),
    }  # fmt: skip


def test_a_stage_s_process_is_told_of_it(start, write):
    assert start(write(), in_process=False) == ["base", "best", "tuned", "other"]


def test_going_on_without_the_file_says_what_is_missing(start, write, tmp_path):
    start(write())
    expected = r"w.yaml:12:13: 'polite' is neither .*; one of your own by --plugin FILE.py"
    with pytest.raises(ConfigError, match=expected):
        start()
    (tmp_path / "w.yaml").write_text((tmp_path / "run/workflow.yaml").read_text())
    with pytest.raises(ConfigError, match=r"unknown reward function 'function:polite'.*; one of your own by --plugin"):
        start()


def test_plan_says_why_on_the_terminal(start, write, tmp_path, monkeypatch, capsys):
    start(write())
    file = write("def polite(completions): return [2]\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", "w.yaml", "--out", "run", "--plugin", file.name]) == 0
    assert "run   best   best_of_n, jax: function changed: polite" in capsys.readouterr().out.splitlines()
