"""Stop signals to a real runner at random moments: while it starts, imports, prepares, between stages, while a stage's
process starts, learns or saves; once, and twice within moments. It ends soon, with the right code and no traceback;
no process of it is left; what it leaves is what the next run goes on from, to the bits of a run that nobody stopped.

A chain is a run that is stopped again and again, and then left alone.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runner_processes import FROM_ITS_FIRST_LINE, Run

from pipelines.host.states import KEPT

pytestmark = [pytest.mark.no_backend]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OPTIONS = ("--set", "state.every_seconds=1e-9")
LEARNED = sum(np.random.default_rng([0, step]).normal(size=2) for step in range(3)).tolist()
"""What a stage of seed 0 adds up in its three updates."""


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    """Of a run without faults; its first stages are those of a shorter one."""
    run = Run(tmp_path_factory.mktemp("uninterrupted"), *OPTIONS)
    assert run.finish().returncode == 0
    return run.models()


def processes_of(run: Run) -> list[str]:
    """Living processes that have the run's folder in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if state != "Z" and any(str(run.out) in word for word in words):
            found.append(" ".join(words))
    return found


def stop(run: Run, number: int, after: float, again: float | None) -> float:
    """Send a signal, and one more where `again` says after how long; returns the seconds that the end took."""
    process = run.start(program=FROM_ITS_FIRST_LINE, one="slow", two="slow", three="slow")
    assert process.stdout.readline() == "begun\n"
    time.sleep(after)
    sent = time.monotonic()
    process.send_signal(number)
    if again is not None:
        time.sleep(again)
        process.send_signal(number)
    output, error = process.communicate(timeout=60)
    seconds = time.monotonic() - sent
    case = f"{number!r} after {after:.2f} s, again: {again}: {process.returncode}\n{output}\n{error}"
    assert "Traceback" not in error and "Error" not in error, case
    assert process.returncode == 128 + number or (process.returncode == 0 and "report:" in output), case
    if again is None:
        for name in run.left_overs():
            assert {path.name for path in (run.out / "stages" / name).iterdir()} <= set(KEPT), case
            assert (run.out / "stages" / name / "state").is_dir(), case
        assert not list(run.out.glob(".*.tmp")), case
    return seconds


def chain(run: Run, seed: int, longest: float) -> list[float]:
    """Six signals, every other of them twice; the seconds that each end took."""
    draw, seconds = random.Random(seed), []
    for attempt in range(6):
        again = draw.choice((0.0, 0.05, 0.3)) if attempt % 2 else None
        seconds.append(stop(run, SIGNALS[attempt % 3], draw.uniform(0, longest), again))
    last = run.finish()
    assert last.returncode == 0, last.error
    assert run.left_overs() == [] and processes_of(run) == []
    return seconds


def test_six_signals(tmp_path):
    """To the first stage; it learns for a sixth of a second."""
    run = Run(tmp_path, *OPTIONS)
    first, _, _ = (tmp_path / "w.yaml").read_text().partition("  two:")
    (tmp_path / "w.yaml").write_text(first)
    chain(run, 0, 1.2)
    assert json.loads((run.out / "stages/one/model/config.json").read_text())["learned"] == LEARNED
    rows = (run.out / "stages/one/metrics.jsonl").read_text().splitlines()
    assert rows == ['{"step": 0, "loss": NaN}', '{"step": 1, "loss": 1.0}', '{"step": 2, "loss": 0.5}']


@pytest.mark.slow
@pytest.mark.fault("signals at random moments, once and twice")
@pytest.mark.parametrize("seed", range(1, 11))
def test_sixty_signals(tmp_path, digests, record_property, seed):
    run = Run(tmp_path, *OPTIONS)
    seconds = chain(run, seed, 1.8)
    assert run.models() == digests
    record_property("cases", len(seconds))
    record_property("seconds", [round(one, 2) for one in seconds])
    assert max(seconds) < 20


ENDED = """
import atexit, sys, time
import pipelines.cli
pipelines.cli.main = lambda: 0
atexit.register(lambda: (print("ended", flush=True), time.sleep(0.3)))
from pipelines.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_once_all_is_done_changes_nothing(number):
    """Python cleans up for a while after the last line of a command."""
    process = subprocess.Popen([sys.executable, "-c", ENDED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ended\n"
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 0
