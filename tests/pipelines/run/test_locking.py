"""The lock of a run folder: who holds it, what becomes of it. Kills of real runners are in tests/reliability."""

import os
import subprocess
import sys

import filelock
import pytest

from pipelines.host.errors import ConfigError
from pipelines.run import locking

pytestmark = pytest.mark.no_backend


def test_a_held_folder_is_refused_and_names_the_process(tmp_path):
    with locking.run_lock(tmp_path):
        with pytest.raises(ConfigError) as refused, locking.run_lock(tmp_path):
            pass
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(tmp_path / ".lock").acquire(blocking=False)
    assert str(refused.value) == (
        f"{tmp_path}: another run (process {os.getpid()}) works in this folder. "
        "Wait for it, stop it, or choose another --out"
    )
    with locking.run_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / ".lock").read_text() == ""


def test_a_stage_that_outlives_its_runner_keeps_the_lock(tmp_path, monkeypatch):
    """The holder's process is gone, so the wait is for the stage; it ends when the stage does."""
    monkeypatch.setattr(locking, "ORPHAN_SECONDS", 0.2)
    with locking.run_lock(tmp_path) as descriptor:
        stage = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,), text=True
        )
    (tmp_path / ".lock").write_text(f"{2**22 + 1}\n")  # above every process id
    with pytest.raises(ConfigError, match=f"another run \\(process {2**22 + 1}\\)"), locking.run_lock(tmp_path):
        pass
    stage.communicate("\n")
    with locking.run_lock(tmp_path):
        pass
