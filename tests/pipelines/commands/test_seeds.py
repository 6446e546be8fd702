"""Several seeds on the command line: what the commands say of them."""

import json

import pytest

from pipelines import cli

pytestmark = pytest.mark.no_backend

SEEDS = ["--seeds", "17,18", "--seeds-from", "other"]


@pytest.fixture
def command(workflow_file, stand_ins, capsys, monkeypatch, tmp_path):
    """A function that runs a command on the workflow; returns its exit code and the lines it printed."""
    monkeypatch.chdir(tmp_path)

    def command(name, *arguments):
        code = cli.main([name, str(workflow_file), *arguments])
        captured = capsys.readouterr()
        return code, (captured.out if code == 0 else captured.err).splitlines()

    return command


def test_validate_says_what_runs_once_a_seed(command):
    code, lines = command("validate", *SEEDS)
    assert code == 0
    assert lines[0].endswith("w.yaml: valid, 4 stages: base, sft, other, evaluation")
    assert lines[1] == "once for each seed of 17, 18: other, evaluation"


def test_plan_names_each_stage_of_each_seed(command):
    assert command("run", "--in-process", "--quiet", "--seeds", "18", "--seeds-from", "other")[0] == 0
    assert command("plan", *SEEDS)[1] == [
        "skip  base                 pretraining, jax: finished",
        "skip  sft                  instruction_tuning, jax: finished",
        "run   other, seed 17       instruction_tuning, jax: missing",
        "run   evaluation, seed 17  evaluation, jax: missing",
        "skip  other, seed 18       instruction_tuning, jax: finished",
        "skip  evaluation, seed 18  evaluation, jax: finished",
        "2 of 6 stages would run, in runs/stand_in",
    ]


def test_run_says_which_seed_is_at_work(command, tmp_path):
    code, lines = command("run", "--in-process", *SEEDS)
    assert code == 0
    assert lines[0] == "[1/6] base (pretraining): on jax, because missing"
    assert "[3/6] other, seed 17 (instruction_tuning): on jax, because missing" in lines
    assert any(line.startswith("[6/6] evaluation, seed 18: done in 0:0") for line in lines)
    assert any(line.startswith("seed 18  0:0") and line.endswith(" GiB") for line in lines)
    assert lines[-1] == "report: runs/stand_in/report.html"
    assert not any(line.startswith(("other  ", "evaluation  ")) for line in lines), "the first seed alone is no result"
    assert command("run", "--in-process", *SEEDS)[1][2] == (
        "[3/6] other, seed 17 (instruction_tuning): finished before, skipped"
    )


def test_a_failure_in_one_seed_keeps_what_is_finished(command, monkeypatch):
    monkeypatch.setenv("STAND_IN", '{"other@18": "data"}')
    code, lines = command("run", "--in-process", *SEEDS)
    assert (code, lines[-1]) == (65, "error: rows.jsonl:3: bad JSON")
    assert command("plan", *SEEDS)[1][-1] == "2 of 6 stages would run, in runs/stand_in"


def test_report_writes_that_of_every_seed_and_of_one(command, capsys, tmp_path):
    command("run", "--in-process", *SEEDS)
    run = tmp_path / "runs/stand_in"
    places = [run, run / "seeds/17", run / "seeds/18"]
    for place in places:
        (place / "summary.json").unlink()
        (place / "report.html").unlink()
    assert cli.main(["report", "runs/stand_in"]) == 0
    assert "seed 17  0:0" in capsys.readouterr().out
    assert all((place / "report.html").is_file() for place in places)
    summaries = [json.loads((place / "summary.json").read_text()) for place in places]
    assert [summary["seed"] for summary in summaries] == [17, 17, 18]
    assert [list(summary["stages"]) for summary in summaries] == [["base", "sft", "other", "evaluation"]] * 3
    (run / "seeds/18/summary.json").unlink()
    (run / "summary.json").unlink()
    assert cli.main(["report", "runs/stand_in/seeds/18"]) == 0
    assert (run / "seeds/18/summary.json").is_file() and not (run / "summary.json").exists()


@pytest.mark.parametrize("name", ["run", "plan", "validate"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "17,x"], "error: --seeds 17,x: `seeds.values.1`: expected a whole number, got the text 'x'"),
        (["--seeds", "17,17"], "error: --seeds 17,17: the seed 17 is named twice; expected different ones"),
        (
            ["--seeds", "17", "--seeds-from", "evalution"],
            "error: --seeds-from evalution: no stage 'evalution'. Did you mean 'evaluation'? Stages: base, sft, other, "
            "evaluation",
        ),
        (
            ["--seeds-from", "sft"],
            "error: --seeds-from sft: there are no seeds to run from there; name them: --seeds 17,18,19",
        ),
    ],
)
def test_errors_name_the_option(command, tmp_path, name, arguments, message):
    assert command(name, *arguments) == (2, [message])
    assert not (tmp_path / "runs").exists()
