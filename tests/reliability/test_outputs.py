"""A run whose output goes nowhere: all stages are done, and the exit code says how it ended. Real processes, stand-in
stages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("outputs closed, terminals gone")]
PROGRAM = Path(__file__).parents[1] / "fixtures" / "stand_in_stages.py"
WORKFLOW = """\
name: outputs
backend: jax
model: {config: {num_layers: 2}}
stages:
  one:
    kind: pretraining
    data: {task: small_world, split: pretraining, size: 9}
  two:
    kind: instruction_tuning
    from: one
    data: {task: small_world, split: sft, size: 9}
"""


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def shell(tmp_path):
    """A function that runs a line of bash, in which `run` is the command; the exit code is that of `run`."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)

    def shell(line, action="", **variables):
        environment = {**os.environ, "STAND_IN": f'{{"two": "{action}"}}', **variables}
        run = f"{sys.executable} {PROGRAM} cli run w.yaml --out run"
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line.replace('RUN', run)}"], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return shell


def finished(folder):
    return {path.name for path in (folder / "run/stages").glob("[!.]*") if (path / "files.json").exists()}


@pytest.mark.parametrize(
    "line",
    ["RUN | head -1", slow("RUN 2>&1 | head -1"), "RUN >&- 2>&-", slow("RUN 2>&-"), slow("RUN > /dev/full 2>&1")],
)
def test_the_run_goes_on_in_silence(shell, tmp_path, line):
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert finished(tmp_path) == {"one", "two"} and (tmp_path / "run/summary.json").is_file()
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_and_a_bad_end_has_its_own_code(shell, tmp_path):
    done = shell("RUN 2>/dev/null | head -1", action="data")
    assert done.returncode == 65 and finished(tmp_path) == {"one"}


def test_a_letter_that_the_encoding_lacks_is_replaced(shell, tmp_path):
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "w.yaml").write_text((tmp_path / "w.yaml").read_text())
    done = shell("cd größe && RUN", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "report: run/report.html" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129)])
def test_a_terminal_that_closes_stops_the_run(shell, tmp_path, number, code):
    process = start(tmp_path)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in error
    assert finished(tmp_path) == {"one"}


def test_nohup_outlives_it(shell, tmp_path):
    process = start(tmp_path, "nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_ctrl_z_stops_the_stage_too_and_both_go_on(shell, tmp_path):
    process = start(tmp_path)
    stage = int((tmp_path / "run/stages/.two.partial/started").read_text())
    process.send_signal(signal.SIGTSTP)
    wait_for(lambda: state(process.pid) == state(stage) == "T")
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: state(stage) == "S" and state(process.pid) == "S")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_grace_is_how_long_a_deaf_stage_is_waited_for(shell, tmp_path):
    process = start(tmp_path, action="stubborn", options=("--grace", "0.5"))
    wait_for((tmp_path / "run/stages/.two.partial/deaf").exists)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and 0.5 <= time.monotonic() - started < 20
    assert "It did not end within 0.5 s and was killed; --grace SECONDS waits longer" in output


def test_a_lock_of_somebody_else_is_one_line(shell, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").mkdir()  # as a file that cannot be opened, for any user
    done = shell("RUN")
    assert done.returncode in (2, 74) and "Traceback" not in done.stderr, done.stderr


_started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def start(folder, *before, action="wait", options=()):
    """The run as a process, whose second stage has begun."""
    environment = {**os.environ, "STAND_IN": f'{{"two": "{action}"}}'}
    command = [*before, sys.executable, str(PROGRAM), "cli", "run", "w.yaml", "--out", "run", *options]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _started.append(process)
    marker = folder / "run/stages/.two.partial/started"
    wait_for(lambda: marker.exists() and marker.read_text())
    return process


def state(process):
    """Of a process: S sleeping, T stopped."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0].replace("R", "S")


def wait_for(condition):
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
