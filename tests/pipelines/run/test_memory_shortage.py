"""A stage that has no memory for its micro-batch gets a smaller one; real processes, stand-in stages."""

import json
import sys

import pytest

from pipelines.host import process_memory
from pipelines.host.errors import InternalError, MemoryShortage
from pipelines.run import runner, stage_process
from pipelines.run.stop_signals import StopSignals
from pipelines.workflow import loading as workflow

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("out of memory")]


@pytest.fixture
def start(workflow_file, stand_ins, tmp_path, monkeypatch):
    """A run in which the stage `sft`, of 12 rows an update, has memory for so many; returns what was said."""

    def start(rows, *overrides, in_process=False):
        monkeypatch.setenv("STAND_IN", json.dumps({"sft": f"memory:{rows}"}))
        said = []
        loaded = workflow.load(workflow_file, ["stages.sft.batch_size=12", *overrides])
        runner.run(loaded, tmp_path / "run", in_process=in_process, quiet=True, say=said.append)
        return said

    return start


@pytest.mark.parametrize("in_process", [False, True])
def test_the_micro_batch_is_halved_until_it_fits(start, tmp_path, in_process):
    said = start(4, in_process=in_process)
    found = [line.rpartition("; ")[2] for line in said if "out of memory" in line]
    assert found == [f"again with micro_batch_size {rows}, the batch stays as it is" for rows in (6, 3)]
    about = json.loads((tmp_path / "run/stages/sft/stage.json").read_text())
    assert (about["config"]["micro_batch_size"], about["config"]["batch_size"]) == (3, 12)
    (warning,) = json.loads((tmp_path / "run/stages/sft/final.json").read_text())["warnings"]
    assert "trained with micro_batch_size 3" in warning
    # The key is that of the workflow: the result stands.
    assert not [line for line in start(4, in_process=in_process) if "because" in line]


def test_one_row_too_many_is_an_error_with_remedies(start, tmp_path):
    with pytest.raises(MemoryShortage, match=r"Lower micro_batch_size, or max_length, or set remat") as error:
        start(0, "stages.sft.micro_batch_size=2")
    assert error.value.exit_code == 70
    assert not list((tmp_path / "run/stages").glob(".*"))


@pytest.mark.parametrize(("kills", "expected"), [([3, 4], MemoryShortage), ([3, 3], InternalError)])
def test_a_kill_is_one_for_memory_where_the_system_counted_one(tmp_path, monkeypatch, kills, expected):
    """Whoever kills a stage otherwise does not get a smaller micro-batch."""
    counted = iter(kills)
    monkeypatch.setattr(stage_process, "kills_for_memory", lambda: next(counted))
    monkeypatch.setattr(
        stage_process, "command", lambda *_: [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    )
    with pytest.raises(InternalError) as error:
        stage_process.run_in_subprocess(tmp_path / "stages/.sft.partial", "torch", StopSignals(), True, 0)
    assert type(error.value) is expected and "set remat: block" in str(error.value)


def test_what_the_system_counts(tmp_path, monkeypatch):
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 2\n")
    (tmp_path / "events").write_text("low 0\noom 9\noom_kill 3\noom_group_kill 0\n")
    files = tmp_path / "vmstat", tmp_path / "events", tmp_path / "missing"
    monkeypatch.setattr(process_memory, "EVENTS", files)
    assert process_memory.kills_for_memory() == 5
    monkeypatch.setattr(process_memory, "EVENTS", ())
    assert process_memory.kills_for_memory() == 0
