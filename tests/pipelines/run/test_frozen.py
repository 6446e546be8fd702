"""`run --frozen`: what a lock names, or nothing."""

import json
import shutil

import pytest

from pipelines import cli
from pipelines.host.errors import ConfigError
from pipelines.run import frozen, keys, runner
from pipelines.workflow import loading as workflow

pytestmark = pytest.mark.no_backend


@pytest.fixture
def start(workflow_file, stand_ins, tmp_path):
    """A function that runs the workflow under the lock of its folder, or another; returns the stages that ran."""

    def start(*overrides, lock=tmp_path / "run/workflow.lock", out="run", seeds=None):
        said = []
        loaded = workflow.load(workflow_file, overrides, seeds=seeds, seeds_from="sft" if seeds else None)
        runner.run(loaded, tmp_path / out, in_process=True, quiet=True, say=said.append, frozen_by=lock)
        return [line.split()[1] for line in said if "because" in line]

    return start


def everything(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def differences(start, *overrides, **options):
    """What a frozen run says that is another, stage by stage; and that it changed nothing on disk."""
    with pytest.raises(ConfigError) as error:
        start(*overrides, **options)
    assert error.value.exit_code == 2
    first, *lines = str(error.value).split("\n")
    assert first.startswith("--frozen: not as in ") and "nothing was started" in first
    return lines


def test_an_equal_lock_runs_as_without_it(start, tmp_path):
    assert start(lock=None) == ["base", "sft", "other", "evaluation"]
    lock = json.loads((tmp_path / "run/workflow.lock").read_text())
    assert start() == []
    shutil.rmtree(tmp_path / "run/stages/sft")
    assert start() == ["sft"]
    # The keys do not know of the option.
    assert json.loads((tmp_path / "run/workflow.lock").read_text()) == lock


def test_every_part_that_differs_is_named_stage_by_stage(start, tmp_path, monkeypatch, all_backends):
    start(lock=None)
    (tmp_path / "run/stages/.junk.1.tmp").touch()
    (tmp_path / "run/.junk.1.tmp").touch()  # a run would remove it
    before = everything(tmp_path / "run")
    assert differences(start, "stages.other.learning_rate=0.5") == [
        "other: config changed: learning_rate 0.0001 -> 0.5", "evaluation: input changed: other",
    ]  # fmt: skip
    assert differences(start, "seed=4")[0] == "base: seed changed: 3 -> 4"
    assert differences(start, "stages.other.backend=torch")[0] == "other: backend changed: jax -> torch"
    text = (tmp_path / "texts.jsonl").read_text()
    (tmp_path / "texts.jsonl").write_text(text.replace("two", "six"))
    assert differences(start)[0] == "base: data changed: data.path"
    (tmp_path / "texts.jsonl").write_text(text)
    with monkeypatch.context() as changed:
        changed.setattr(keys, "code_digest", lambda: "other")
        assert differences(start)[0] == "base: code changed"
    with monkeypatch.context() as changed:
        changed.setattr(keys, "versions", lambda *_: {"keras": "3.99"})
        assert differences(start)[0].startswith("base: versions changed: python 3.")
    with monkeypatch.context() as changed:
        changed.setenv("JAX_ENABLE_X64", "1")
        found = differences(start)
        assert found[0] == "base: machine changed: JAX_ENABLE_X64 nothing -> 1" and len(found) == 8
    assert everything(tmp_path / "run") == before
    (tmp_path / "run/stages/.junk.1.tmp").unlink()
    assert start() == []


def test_stages_that_are_new_and_gone(start, tmp_path, workflow_file):
    start(lock=None)
    text = workflow_file.read_text()
    workflow_file.write_text(text.replace("  other:", "  another:").replace("other]", "another]"))
    assert differences(start) == [
        "another: is not in it", "evaluation: config changed: compare [\"sft\", \"other\"] -> [\"sft\", \"another\"]",
        "evaluation: input changed: other", "evaluation: input changed: another",
        "other: the workflow has no such stage any more",
    ]  # fmt: skip


def test_seeds_are_compared_one_by_one(start, tmp_path):
    start(lock=None, seeds="3,4")
    assert start(seeds="3,4") == []
    assert differences(start, seeds="3,5") == [
        *(f"{name}, seed 5: is not in it" for name in ("sft", "other", "evaluation")),
        *(f"{name}, seed 4: the workflow has no such stage any more" for name in ("sft", "other", "evaluation")),
    ]


def test_the_lock_of_another_run(start, tmp_path):
    start(lock=None)
    lock = tmp_path / "run/workflow.lock"
    assert start(out="new", lock=lock) == ["base", "sft", "other", "evaluation"]
    assert differences(start, "seed=4", out="third", lock=lock) and not (tmp_path / "third").exists()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"stages": 3}', '{"stages": {"base": 3}}', '{"name": "w"}'])
def test_no_lock_or_none_that_can_be_read(start, tmp_path, text):
    if text is not None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/workflow.lock").write_text(text)
    message = "no lock .*workflow.lock; run once without --frozen" if text is None else "is no lock of a run"
    with pytest.raises(ConfigError, match=message) as error:
        start()
    assert error.value.exit_code == 2 and not (tmp_path / "run/stages").exists()
    assert (tmp_path / "run").exists() == (text is not None)


def test_many_differences_are_counted(start, monkeypatch):
    start(lock=None)
    monkeypatch.setattr(frozen, "MOST_NAMED", 3)
    found = differences(start, "seed=4")
    assert len(found) == 4 and found[-1] == "... and 5 more"


def test_the_option_in_both_forms(start, workflow_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["run", str(workflow_file), "--in-process", "--quiet"]
    assert cli.main([*command, "--frozen"]) == 2
    assert "error: --frozen: no lock runs/stand_in/workflow.lock" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert cli.main(command) == 0
    assert cli.main([*command, "--frozen"]) == 0
    assert cli.main([*command, "--frozen", "runs/stand_in/workflow.lock", "--out", "runs/again"]) == 0
    capsys.readouterr()
    assert cli.main([*command, "--frozen", "--set", "stages.sft.learning_rate=0.5"]) == 2
    assert "error: sft: config changed: learning_rate 0.0001 -> 0.5\n" in capsys.readouterr().err


def test_commits_of_the_hub_come_from_the_lock_that_is_named(start, workflow_file, local_hub, tmp_path):
    first = local_hub.commit("org/gemma", {"config.json": "{}"})
    text = workflow_file.read_text()
    model = text.replace("model: {config: {num_layers: 2}}", "model: org/gemma")
    workflow_file.write_text(model.replace("kind: pretraining", "kind: instruction_tuning").replace(
        "{path: texts.jsonl, text: text}", "{task: small_world, split: sft, size: 9}"
    ))  # fmt: skip
    start(lock=None)
    moved = local_hub.commit("org/gemma", {"config.json": "{ }"})
    assert start() == []
    start(lock=None, out="other")
    locks = {out: tmp_path / out / "workflow.lock" for out in ("run", "other")}
    assert start(lock=locks["run"], out="third")[0] == "base"
    assert json.loads((tmp_path / "third/workflow.lock").read_text())["hub"]["org/gemma"]["commit"] == first
    assert differences(start, f"model=org/gemma@{moved}")[0] == "base: data changed: model"
    assert start(f"model=org/gemma@{moved}", lock=locks["other"], out="other") == []
