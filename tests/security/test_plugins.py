"""Code of a user's own runs in a stage alone: what only looks at a workflow reads its names and runs nothing of it."""

import json

import pytest
from reward_package import install

from pipelines import cli
from pipelines.run import runner
from pipelines.stages import registry

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile files and settings")]

WORKFLOW = """\
name: own
backend: jax
model: {base}
stages:
  best:
    kind: best_of_n
    reward: REWARD
    data: {path: rows.jsonl}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "stage_function", lambda kind: lambda config, context: {})
    monkeypatch.setattr(runner, "write_results", lambda folder: {})
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p"}\n')
    canary = tmp_path / "canary"
    (tmp_path / "mine.py").write_text(
        f"open({str(canary)!r}, 'w').close()\n\ndef polite(completions, trap=open({str(canary)!r}, 'w')): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder):
    def write(reward="polite"):
        text = WORKFLOW.replace("{base}", str(folder / "base")).replace("REWARD", reward)
        (folder / "w.yaml").write_text(text)
        return "w.yaml"

    return write


@pytest.mark.parametrize("command", ["validate", "plan", "run", "show"])
def test_no_command_runs_the_file_in_its_own_process(command, folder, write, capsys):
    """`run` hands it to the stage, which is a stand-in here that never looks at it."""
    more = {"show": ["best"], "run": ["--in-process", "--quiet"]}.get(command, [])
    code = cli.main([command, write(), *more, "--plugin", "mine.py"])
    error = capsys.readouterr().err
    # The model is a stand-in too, and `show` is the only one that opens it.
    assert (code, "model_type" in error) == ((65, True) if command == "show" else (0, False)), error
    assert not (folder / "canary").exists()


def test_the_stage_is_told_where_the_file_is(folder, write):
    assert cli.main(["run", write(), "--plugin", "mine.py", "--in-process", "--quiet"]) == 0
    about = json.loads((folder / "runs/own/stages/best/stage.json").read_text())
    found = about["user_functions"]["polite"]
    assert found["file"] == str(folder / "mine.py") and found["origin"] == f"{folder / 'mine.py'}:3"
    assert about["key_parts"]["functions"] == {"polite": found["digest"]}
    assert about["config"]["reward"] == "function:polite"


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_nothing_of_an_installed_package_is_imported(command, folder, write, monkeypatch, capsys):
    source = f"open({str(folder / 'canary')!r}, 'w').close()\n"
    files = {"brought/__init__.py": source, "brought/rewards.py": source}
    install(folder / "site", monkeypatch, files, {"polite": "brought.rewards:f"})
    assert cli.main([command, write()]) == 0, capsys.readouterr().err
    assert not (folder / "canary").exists()


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("mine.polite", "'mine.polite' is neither an earlier stage nor a model folder"),
        ("mine:polite", "'mine:polite' is neither an earlier stage nor a model folder"),
        ("./mine.py", "'./mine.py' has no model"),
        ("function:mine.polite", "unknown reward function 'function:mine.polite'"),
        ("function:os.system", "unknown reward function 'function:os.system'"),
        ("function:_private", "unknown reward function 'function:_private'"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_workflow_cannot_name_a_file_or_a_module(command, reward, message, folder, write, capsys):
    with (folder / "mine.py").open("a") as file:
        file.write("def _private(completions): pass\n")
    assert cli.main([command, write(reward), "--plugin", "mine.py"]) == 2
    error = capsys.readouterr().err
    assert f"w.yaml:7:13: {message}" in error and "Traceback" not in error
    assert not (folder / "canary").exists() and not (folder / "runs").exists()


def test_a_plugin_key_in_a_workflow_is_unknown(folder, write, capsys):
    path = folder / write()
    path.write_text("plugin: mine.py\n" + path.read_text())
    assert cli.main(["validate", "w.yaml"]) == 2
    assert "w.yaml:1:1: unknown key 'plugin'" in capsys.readouterr().err
