"""Real faults to real runner processes: signals, kills, a second runner, a full disk. The stages are stand-ins without
a model."""

import signal
import time

import pytest
from runner_processes import Run, is_alive, wait_until_dead

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("kills, signals, a second runner, a full disk")]


def slow(place: str):
    """One more place of a fault whose likes are tested; each takes several processes."""
    return pytest.param(place, marks=pytest.mark.slow)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    for process in run.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Digests of a run without faults."""
    run = Run(tmp_path_factory.mktemp("uninterrupted"))
    assert run.finish().returncode == 0
    return run.models()


@pytest.mark.parametrize("stage", [slow("one"), "two", slow("three")])
def test_a_killed_runner_leaves_no_process_and_the_next_one_continues(run, uninterrupted, stage):
    first = run.start(**{stage: "wait"})
    stage_process = int(run.wait_for(f".{stage}.partial/started").read_text())
    finished = set(run.models())
    first.kill()
    first.wait()
    wait_until_dead(stage_process)
    second = run.finish()
    assert second.returncode == 0, second.error
    assert second.output.count("finished before, skipped") == len(finished) == ["one", "two", "three"].index(stage)
    assert run.models() == uninterrupted
    assert run.left_overs() == []


def test_a_run_started_right_after_a_kill_waits_for_the_orphan(run, uninterrupted):
    first = run.start(two="wait")
    run.wait_for(".two.partial/started")
    first.kill()
    second = run.finish()
    assert second.returncode == 0, second.error
    assert run.models() == uninterrupted


SEEDS = ("--seeds", "17,18", "--seeds-from", "two")
SEED_STAGES = ("one", "17/two", "17/three", "18/two", "18/three")


@pytest.fixture(scope="module")
def uninterrupted_seeds(tmp_path_factory):
    """Digests of a run of two seeds without faults."""
    run = Run(tmp_path_factory.mktemp("seeds"), *SEEDS)
    assert run.finish().returncode == 0
    assert set(run.models()) == set(SEED_STAGES)
    return run.models()


@pytest.mark.parametrize("place", [slow("one"), "17/three", "18/two", slow("18/three")])
def test_a_runner_killed_between_seeds_goes_on_with_what_is_left(tmp_path, uninterrupted_seeds, place):
    """Each run is a process of its own, and so is each stage."""
    run = Run(tmp_path, *SEEDS)
    seed, _, stage = place.rpartition("/")
    first = run.start(**{f"{stage}@{seed or 0}": "wait"})
    stage_process = int(run.wait_for(f".{stage}.partial/started", f"seeds/{seed}" if seed else "").read_text())
    finished = set(run.models())
    assert finished == set(SEED_STAGES[: SEED_STAGES.index(place)])
    first.kill()
    first.wait()
    wait_until_dead(stage_process)
    second = run.finish()
    assert second.returncode == 0, second.error
    assert second.output.count("finished before, skipped") == len(finished)
    assert run.models() == uninterrupted_seeds
    assert run.left_overs() == []
    assert all((part / "report.html").is_file() for part in run.parts())


def test_a_stop_signal_names_the_seed_that_it_stops(tmp_path, uninterrupted_seeds):
    run = Run(tmp_path, *SEEDS)
    first = run.start(**{"two@18": "wait"})
    run.wait_for(".two.partial/started", "seeds/18")
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=30)
    assert first.returncode == 143
    assert "stopped in stage two, seed 18; finished stages are kept" in output
    assert set(run.models()) == set(SEED_STAGES[:3]) and run.left_overs() == []
    assert run.finish().returncode == 0
    assert run.models() == uninterrupted_seeds


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_stops_the_stage_and_the_next_run_continues(run, uninterrupted, number, code):
    first = run.start(two="wait")
    stage_process = int(run.wait_for(".two.partial/started").read_text())
    first.send_signal(number)
    output, error = first.communicate(timeout=30)
    assert first.returncode == code
    assert not is_alive(stage_process)
    assert "stopped in stage two; finished stages are kept" in output and "Traceback" not in error
    assert set(run.models()) == {"one"} and run.left_overs() == []
    assert run.finish().returncode == 0
    assert run.models() == uninterrupted


def test_a_second_signal_ends_a_deaf_stage_at_once(run):
    first = run.start(one="stubborn")
    stage_process = int(run.wait_for(".one.partial/started").read_text())
    while not (run.out / "stages/.one.partial/deaf").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=10)
    assert first.returncode == 143
    assert not is_alive(stage_process)
    assert run.left_overs() == []


def test_two_runs_on_one_folder(run):
    first = run.start(two="wait")
    run.wait_for(".two.partial/started")
    second = run.finish()
    assert second.returncode == 2
    assert f"another run (process {first.pid}) works in this folder" in second.error
    assert first.poll() is None and (run.out / "stages/.two.partial").exists(), "the second one disturbed the first"
    other = run.finish(out=run.folder / "elsewhere")
    assert other.returncode == 0, other.error


def test_kills_at_many_moments(run, uninterrupted):
    for attempt in range(6):
        process = run.start()
        time.sleep(0.15 + 0.22 * attempt)
        process.kill()
        process.communicate()
    last = run.finish()
    assert last.returncode == 0, last.error
    assert run.models() == uninterrupted
    assert run.left_overs() == []


def test_a_full_disk(run, uninterrupted):
    process = run.start(limit=64, two="big")  # 64 KiB a file; the stage writes a MiB
    _, error = process.communicate(timeout=60)
    assert process.returncode == 74
    assert (
        "cannot write (File too large)" in error
        and "make room and run the same command again" in error
        and "Traceback" not in error
    )
    assert set(run.models()) == {"one"} and run.left_overs() == []
    assert run.finish().returncode == 0
    assert run.models() == uninterrupted


@pytest.mark.parametrize(("action", "code", "message"), [
    ("data", 65, "error: rows.jsonl:3: bad JSON\n"),
    ("config", 2, "error: no such thing\n"),
    ("bug", 70, "RuntimeError: a bug of ours"),
    ("killed", 70, "was killed (signal 9)"),
])  # fmt: skip
def test_a_failing_stage_s_exit_code_is_the_runner_s(run, action, code, message):
    process = run.finish(two=action)
    assert process.returncode == code
    assert message in process.error
    assert ("Traceback" in process.error) == (action == "bug")
    assert run.left_overs() == []
