"""`status`: how far a run is."""

import os
import time

import pytest

from pipelines import cli
from pipelines.host import states
from pipelines.run import runner
from pipelines.workflow import loading as workflow

pytestmark = pytest.mark.no_backend


@pytest.fixture
def run(workflow_file, stand_ins, tmp_path):
    runner.run(workflow.load(workflow_file), tmp_path / "run", in_process=True, quiet=True, say=lambda line: None)
    return tmp_path / "run"


def told(run, capsys):
    assert cli.main(["status", str(run)]) == 0
    return capsys.readouterr().out.splitlines()


def begin(run, name, done, of, seconds, age):
    folder = run / f"stages/.{name}.partial/state/{done}"
    folder.mkdir(parents=True)
    manifest = {"key": "k", "step": done, "done": done, "of": of, "unit": "updates", "seconds": seconds}
    states.write_manifest(folder, manifest)
    os.utime(folder / "manifest.json", (time.time() - age,) * 2)


def test_a_finished_run(run, capsys):
    lines = told(run, capsys)
    assert [line.split()[0] for line in lines[:-1]] == ["base", "sft", "other", "evaluation"]
    assert all("finished in 0:0" in line for line in lines[:-1]) and lines[-1] == "no process works on it"


def test_a_run_at_work(run, capsys):
    """340 of 1,000 updates in 680 s: 660 more take 22 minutes."""
    (run / "stages/sft").rename(run / "gone")
    (run / "stages/evaluation/final.json").unlink()
    begin(run, "sft", 340, 1000, 680.0, 12)
    (run / ".lock").write_text(f"{os.getpid()}\n")
    lines = told(run, capsys)
    assert "at work, 340 of 1000 updates, 22:00 left, last state 0:12 ago" in lines[1]
    assert "damaged: final.json is missing" in lines[3]
    assert lines[-1] == f"process {os.getpid()} works on it"
    (run / ".lock").write_text("")
    assert "stopped, 340 of 1000 updates, last state 0:12 ago" in told(run, capsys)[1]


def test_stages_that_have_not_come_far(run, capsys):
    (run / "stages/sft").rename(run / "stages/.sft.partial")
    (run / "stages/other").rename(run / "gone")
    lines = told(run, capsys)
    assert lines[1].endswith("stopped before its first state") and lines[2].endswith("waiting")


def test_no_run_is_an_error(tmp_path, capsys):
    assert cli.main(["status", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
