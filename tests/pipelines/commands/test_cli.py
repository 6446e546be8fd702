"""The command line: exit codes, messages, what is imported, and what it prints."""

import json
import subprocess
import sys

import pytest

from pipelines import cli
from pipelines.commands import workflows as commands
from pipelines.host import paths
from pipelines.host.errors import InternalError
from pipelines.run import planning
from pipelines.workflow import json_schema

pytestmark = pytest.mark.no_backend

HEAVY = ("keras", "datasets", "jax", "tensorflow", "torch", "transformers", "matplotlib")


def in_new_process(arguments, folder):
    """A command in a fresh interpreter that then prints which heavy modules it has."""
    code = (
        "import sys\nfrom pipelines.cli import main\ntry:\n    code = main(sys.argv[1:])\nexcept SystemExit as end:\n "
        f"   code = end.code\nprint('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\nsys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["--help", "list", "explain", "schema", "validate", "plan", "run"])
def test_light_commands_import_nothing_heavy(command, workflow_file, tmp_path):
    arguments = [command]
    if command in ("validate", "plan", "run"):
        arguments.append(str(workflow_file))
    if command == "run":  # everything up to the first stage, which then fails at once
        arguments += ["--set", "stages.base.data.path=missing.jsonl"]
    done = in_new_process(arguments, tmp_path)
    assert done.returncode == (65 if command == "run" else 0), done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_runner_itself_loads_nothing_heavy(stand_ins):
    shown = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    code = f"import sys, pipelines.run.runner, pipelines.run.stage_main; {shown}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_run_says_what_happens_and_where_the_report_is(workflow_file, stand_ins, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", str(workflow_file), "--in-process"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/4] base (pretraining): on jax, because missing"
    assert lines[1].startswith("[1/4] base: done in 0:0")
    assert lines[-1] == "report: runs/stand_in/report.html"
    assert any(line.startswith("evaluation  0:0") and "GiB" in line for line in lines)
    assert (tmp_path / "runs/stand_in/report.html").is_file()
    final = json.loads((tmp_path / "runs/stand_in/stages/base/final.json").read_text())
    assert final == {"loss": 0.5, "backend": "jax", "quiet": False}


def test_quiet_prints_only_where_the_report_is(workflow_file, stand_ins, capfd, tmp_path):
    assert cli.main(["run", str(workflow_file), "--quiet", "--out", str(tmp_path / "out")]) == 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == (f"report: {tmp_path / 'out/report.html'}\n", "")


def test_plan_before_and_after(workflow_file, stand_ins, capsys, tmp_path):
    out = str(tmp_path / "out")
    assert cli.main(["plan", str(workflow_file), "--out", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"4 of 4 stages would run, in {out}"
    assert not (tmp_path / "out").exists()
    cli.main(["run", str(workflow_file), "--out", out, "--in-process", "--quiet"])
    capsys.readouterr()
    cli.main(["plan", str(workflow_file), "--out", out, "--set", "stages.other.epochs=2"])
    assert capsys.readouterr().out.splitlines() == [
        "skip  base        pretraining, jax: finished",
        "skip  sft         instruction_tuning, jax: finished",
        "run   other       instruction_tuning, jax: config changed: epochs 1.0 -> 2.0",
        "run   evaluation  evaluation, jax: input changed: other",
        f"2 of 4 stages would run, in {out}",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "missing.yaml"], 2, "error: missing.yaml: no such workflow file."),
        (["run", "w.yaml", "--set", "stages.base.lerning_rate=1"], 2, "Did you mean 'learning_rate'?"),
        (["run", "w.yaml", "--set", "stages.base.data.path=missing.jsonl"], 65, "no data file 'missing.jsonl'"),
        (
            ["run", "w.yaml", "--set", "stages.base.data.text=txt"],
            65,
            "texts.jsonl:1: no column 'txt'. Did you mean 'text'?",
        ),
        (
            ["validate", "w.yaml", "--set", "stages.base.data.split=train"],
            2,
            "texts.jsonl is a file. Remove it, or: --set stages.base.data.split=null",
        ),
        (
            ["validate", "w.yaml", "--backend", "mxnet"],
            2,
            "--backend mxnet: `backend`: expected jax or tensorflow or torch",
        ),
        (["report", "nowhere"], 2, "nowhere: no run folder"),
        (["copy", "quickstrat"], 2, "no shipped workflow 'quickstrat'. Did you mean 'quickstart'?"),
        (["convert", "w.yaml", "out"], 2, "w.yaml: no model there"),
        (["generate", ".", "--prompt", "x"], 2, ".: no model there"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(
    arguments, code, message, workflow_file, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    shipped = tmp_path / "shipped.yaml"
    shipped.write_text("# x\n")
    monkeypatch.setattr(commands, "shipped_workflows", lambda: {"quickstart": shipped})
    before = sorted(path.name for path in tmp_path.iterdir())
    assert cli.main(arguments) == code
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "something was left behind"


def test_usage_errors_exit_with_2(capsys):
    for arguments in ([], ["fly"], ["run"], ["run", "w.yaml", "--sett", "a=1"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert "usage: gemma-keras" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RuntimeError("oh"), 70, "Traceback"),
        (InternalError("died"), 70, "error: died"),
        (OSError(28, "No space left on device"), 74, "make room"),
        (KeyboardInterrupt(), 130, ""),
        (ModuleNotFoundError("No module named 'gguf'", name="gguf"), 2, "pip install 'gguf>=0.17'"),
    ],
)
def test_exit_code_of_each_kind_of_failure(error, code, text, workflow_file, capsys, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(planning, "plan", fail)
    assert cli.main(["plan", str(workflow_file)]) == code
    assert text in capsys.readouterr().err


def test_list_and_copy(tmp_path, monkeypatch, capsys):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "quick.yaml").write_text("# From scratch in minutes.\nname: quick\n")
    monkeypatch.setattr(commands, "shipped_workflows", lambda: {"quick": shipped / "quick.yaml"})
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "quick  From scratch in minutes.\n"
    assert cli.main(["copy", "quick"]) == 0
    assert (tmp_path / "quick.yaml").read_text() == "# From scratch in minutes.\nname: quick\n"
    assert cli.main(["copy", "quick.yaml", "sub/mine.yaml"]) == 0 and (tmp_path / "sub/mine.yaml").is_file()
    assert cli.main(["copy", "quick", "sub"]) == 0 and (tmp_path / "sub/quick.yaml").is_file()
    (tmp_path / "quick.yaml").write_text("mine")
    assert cli.main(["copy", "quick"]) == 2
    assert (tmp_path / "quick.yaml").read_text() == "mine"
    assert cli.main(["copy", "quick", "--force"]) == 0 and (tmp_path / "quick.yaml").read_text() != "mine"


def test_schema_is_printed(capsys):
    assert cli.main(["schema"]) == 0
    assert capsys.readouterr().out == json_schema.schema_text()


def test_copy_puts_the_schema_beside_it_over_an_older_one_and_over_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = "workflow.schema.json: from it editors complete and explain the keys\n"
    name, file = "quickstart", tmp_path / "workflow.schema.json"
    assert cli.main(["copy", name]) == 0
    assert capsys.readouterr().out == f"quickstart.yaml\n{said}Next: gemma-keras run quickstart.yaml\n"
    assert file.read_text(encoding="utf-8") == json_schema.schema_text()
    assert cli.main(["copy", name, "second.yaml"]) == 0
    assert capsys.readouterr().out == "second.yaml\nNext: gemma-keras run second.yaml\n", "it is there already"
    older = {**json_schema.workflow_schema(), "properties": {}}
    file.write_text(json.dumps(older))
    assert cli.main(["copy", name, "third.yaml"]) == 0
    assert capsys.readouterr().out == f"third.yaml\n{said}Next: gemma-keras run third.yaml\n"
    assert file.read_text(encoding="utf-8") == json_schema.schema_text()
    file.write_text("mine")
    assert cli.main(["copy", name, "fourth.yaml", "--force"]) == 0
    line = "workflow.schema.json: another file, left as it is; `gemma-keras schema` prints what editors read"
    assert capsys.readouterr().out == f"fourth.yaml\n{line}\nNext: gemma-keras run fourth.yaml\n"
    assert file.read_text() == "mine"
    assert cli.main(["copy", name, "below/quickstart.yaml"]) == 0
    assert (tmp_path / "below/workflow.schema.json").is_file()


def test_the_line_for_editors_is_no_description(tmp_path, monkeypatch, capsys):
    file = tmp_path / "quick.yaml"
    file.write_text(f"{json_schema.MODELINE}\n# From scratch.\nname: quick\n")
    monkeypatch.setattr(commands, "shipped_workflows", lambda: {"quick": file})
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "quick  From scratch.\n"


def test_list_is_whole_in_a_pipe_and_cut_on_a_terminal(tmp_path, monkeypatch, capsys):
    file = tmp_path / "long.yaml"
    file.write_text(f"# {'From scratch ' * 10}and so on (Gao et al.\n# 2022). Starts from nothing.\nname: long\n# x\n")
    monkeypatch.setattr(commands, "shipped_workflows", lambda: {"long": file})
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == f"long  {'From scratch ' * 10}and so on (Gao et al. 2022).\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["list"]) == 0
    line = capsys.readouterr().out
    assert line == f"long  {('From scratch ' * 10)[:47]}...\n"


def test_help_says_what_to_do_first(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    steps = said[said.index("first steps:") : said.index("exit codes:")].split("\n")
    names = ("copy", "validate", "explain", "show", "run", "chat")
    assert [line.split()[:2] for line in steps[1:7]] == [["gemma-keras", name] for name in names]


def test_every_option_is_described():
    for name, command in cli._parser()._subparsers._group_actions[0].choices.items():
        for action in command._actions:
            assert action.help or name in ("report", "copy"), f"{name}: {action.dest}"


def test_shipped_workflows_are_found_in_the_wheel_and_in_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "pipelines"
    for folder in (package / "workflows", tmp_path / "workflows"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(paths, "PACKAGE", package)
    (tmp_path / "workflows/a.yaml").touch()
    assert paths.shipped_workflows() == {"a": tmp_path / "workflows/a.yaml"}
    (package / "workflows/a.yaml").touch()
    assert paths.shipped_workflows() == {"a": package / "workflows/a.yaml"}


def test_python_m_pipelines(tmp_path):
    done = subprocess.run([sys.executable, "-m", "pipelines", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("gemma-keras")
