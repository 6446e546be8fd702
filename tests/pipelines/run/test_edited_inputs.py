"""Data, a model and the code that are edited before a run, while it is at another stage, while a stage reads them, and
afterwards: the stage runs again or the run ends with 65, and never does a result stand under the key of other inputs.
"""

import functools
import json
import shutil

import pytest
from runner_processes import Run

from pipelines.host.errors import DataError
from pipelines.host.paths import PACKAGE
from pipelines.run import keys, runner, stage_main
from pipelines.workflow import loading

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("data, model, code edited")]
WORKFLOW = """\
name: edited
backend: jax
model: {config: {num_layers: 2}}
stages:
  first:
    kind: pretraining
    data: {path: texts.jsonl, text: text}
  second:
    kind: instruction_tuning
    from: tuned
    data: {path: rows.jsonl}
"""
CHANGED = {"data": r"rows\.jsonl: changed while", "model": "tuned: changed while", "code": "the code changed while"}


class Inputs:
    """A workflow whose second stage reads a file and a model's folder; and code, which is a text here."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.code = folder, "code"
        (folder / "w.yaml").write_text(WORKFLOW)
        (folder / "texts.jsonl").write_text('{"text": "one"}\n')
        (folder / "tuned").mkdir()
        (folder / "tuned/config.json").write_text('{"model_type": "gemma3_text", "num_hidden_layers": 1}')
        for what in ("data", "model"):
            self.edit(what, "old")
        monkeypatch.setattr(keys, "code_digest", functools.cache(lambda: self.code))

    def edit(self, what, text):
        if what == "data":
            (self.folder / "rows.jsonl").write_text(f'{{"prompt": "a", "completion": "{text}"}}\n')
        elif what == "model":
            (self.folder / "tuned/model.safetensors").write_text(text)
        else:
            self.code = text

    def run(self):
        """Returns which stages ran, and why."""
        keys.code_digest.cache_clear()  # as in a new process
        said, loaded = [], loading.load(self.folder / "w.yaml")
        runner.run(loaded, self.folder / "run", in_process=True, quiet=True, say=said.append)
        return [line.partition("] ")[2] for line in said if "because" in line]

    def finished(self):
        return {path.name for path in (self.folder / "run/stages").iterdir()}


@pytest.fixture
def inputs(tmp_path, stand_ins, monkeypatch):
    return Inputs(tmp_path, monkeypatch)


@pytest.fixture
def meanwhile(monkeypatch):
    """A function that has something done before, or after, a stage's own work; None takes it back."""
    run = stage_main.registry.stage_function("instruction_tuning")

    def meanwhile(name, before=lambda: None, after=lambda: None):
        def stage(config, context):
            before() if context.name == name else None
            final = run(config, context)
            after() if context.name == name else None
            return final

        monkeypatch.setattr(stage_main.registry, "stage_function", lambda kind: stage)

    return meanwhile


@pytest.mark.parametrize("what", CHANGED)
def test_edited_before_a_run(inputs, what):
    inputs.run()
    assert inputs.run() == []
    inputs.edit(what, "new")
    why = {"data": "data changed: data.path", "model": "data changed: from", "code": "code changed"}[what]
    again = inputs.run()
    assert why in again[-1] and len(again) == (2 if what == "code" else 1)


@pytest.mark.parametrize("what", CHANGED)
@pytest.mark.parametrize("when", ["while another stage runs", "while it is read"])
def test_edited_while_a_run_goes_on(inputs, meanwhile, what, when):
    meanwhile("first" if when == "while another stage runs" else "second", lambda: inputs.edit(what, "new"))
    with pytest.raises(DataError, match=CHANGED[what]) as error:
        inputs.run()
    assert error.value.exit_code == 65
    assert inputs.finished() <= {"first"}
    meanwhile(None)
    assert "second (instruction_tuning): on jax, because missing" in inputs.run()
    assert inputs.run() == []


@pytest.mark.parametrize("what", ["data", "model"])
def test_edited_after_it_was_read(inputs, meanwhile, what):
    """The result is of what was read; the next run makes it again."""
    meanwhile("second", after=lambda: inputs.edit(what, "new"))
    inputs.run()
    final = json.loads((inputs.folder / "run/stages/second/final.json").read_text())
    assert "was written to after the stage had read it" in final["warnings"][0]
    meanwhile(None)
    assert len(inputs.run()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["data", "code"])
def test_edited_under_real_processes(tmp_path, what, monkeypatch):
    """The code is a copy of ours."""
    for package in ("gemma_keras", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE.parent / package, tmp_path / "code" / package, ignore=ignored)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    run = Run(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    text = (tmp_path / "w.yaml").read_text().replace("{task: small_world, split: sft, size: 9}", "{path: rows.jsonl}")
    (tmp_path / "w.yaml").write_text(text)
    process = run.start(one="hold")
    run.wait_for(".one.partial/started")
    edited = {"data": tmp_path / "rows.jsonl", "code": tmp_path / "code/pipelines/sampling/rollout.py"}[what]
    edited.write_text(edited.read_text() + "\n")
    (tmp_path / "go").touch()
    output, error = process.communicate(timeout=60)
    assert process.returncode == 65, output + error
    assert "changed while the run was going" in error and "Traceback" not in error
    assert set(run.models()) <= {"one"} and run.left_overs() == []
    again = run.finish()
    assert again.returncode == 0, again.error
    assert again.output.count("because") == {"data": 2, "code": 3}[what]
