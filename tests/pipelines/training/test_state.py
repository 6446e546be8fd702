"""The state of an unfinished stage: what is kept, when, and what is left of it on disk."""

import json
import time

import ml_dtypes
import numpy as np
import pytest

from pipelines.host import states, stopping
from pipelines.host.errors import DiskError, Stopped
from pipelines.training import state as state_module
from pipelines.training.state import StageState
from pipelines.training.state_files import Snapshot, Source

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("state of a stage: damage, signals, no room")]
ARRAYS = {
    "weights/a": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "weights/half": np.array([1.5, -2.25], ml_dtypes.bfloat16),
    "optimizer/iteration": np.array(7, np.int32),
    "mask": np.array([True, False, True]),
}
RECORD = {"step": 7, "losses": [0.1, float("nan"), 1 / 3]}


@pytest.fixture(autouse=True)
def no_signal():
    yield
    try:
        stopping.obey()
    except Stopped:
        pass


def make_state(output, every_seconds=30.0, keep=2, key="key", said=None, last=False):
    warn = (said if said is not None else []).append
    return StageState(output, key, {"numpy": "1"}, every_seconds, keep, warn, last)


@pytest.fixture
def always(monkeypatch):
    """A state at every place where one can be taken."""
    monkeypatch.setattr(state_module, "COST_SHARE", 0.0)
    return 1e-9


def take(state, done, record=RECORD, arrays=ARRAYS, warnings=()):
    state.checkpoint(done, 10, "updates", lambda: Snapshot(arrays, record), list(warnings))
    state._wait()


def test_a_new_process_finds_the_same_bits(tmp_path, always):
    """Of every type, of no dimension too; one of the arrays is read from a device."""
    first = make_state(tmp_path, always)
    on_device = Source((2, 3), np.dtype(np.float32), ARRAYS["weights/a"].copy)
    take(first, 7, arrays={**ARRAYS, "weights/a": on_device})
    again = make_state(tmp_path, always)
    found = again.resume([])
    assert again.resume([]) is None  # it holds no copy of them any longer
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype and found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()
    assert repr(found.record) == repr(RECORD)
    assert found.part("optimizer").arrays.keys() == {"iteration"}


def test_the_newest_are_left_and_nothing_else(tmp_path, always):
    state = make_state(tmp_path, always, keep=2)
    for done in (1, 2, 10):
        take(state, done)
    assert [path.name for path in states.state_folders(tmp_path)] == ["10", "2"]
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"2", "10"}
    done = states.how_far(tmp_path)
    assert (done.key, done.step, str(done)) == ("key", 10, "10 of 10 updates")


def test_a_state_is_due_after_its_seconds_and_after_33_times_its_cost(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(state_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(state_module.time, "thread_time", lambda: 0.0)
    state = make_state(tmp_path, every_seconds=30.0)
    costly = Source((1,), np.dtype(np.float32), lambda: now.__setitem__(0, now[0] + 2.0) or np.zeros(1, np.float32))
    taken = []
    for seconds, done in ((0, 1), (29, 2), (2, 3), (31, 4), (33, 5), (4, 6)):
        now[0] += seconds
        state.checkpoint(done, 10, "updates", lambda done=done: taken.append(done) or Snapshot({"a": costly}, {}), [])
        state._wait()
    # The clock starts at the first place. After the one at 31 s that cost 2 s the next is due 66 s later.
    assert taken == [3, 6]
    figures = {"taken": 2, "pause": 4.0, "longest_pause": 2.0, "writing": 0.0}
    # The longest time between two places at which a stop signal would have been seen.
    assert state.figures() == {**figures, "longest_wait": 33.0}


@pytest.mark.parametrize(("last", "steps"), [(True, ["10"]), (False, [])])
def test_the_last_one_is_taken_where_a_longer_stage_could_go_on_from_it(tmp_path, last, steps):
    state = make_state(tmp_path, last=last)
    for done in (8, 9, 10):
        take(state, done)
    assert [path.name for path in states.state_folders(tmp_path)] == steps


def test_what_grew_while_nothing_changed_is_cut_off(tmp_path, always):
    """Lines of an evaluation that a signal ended are written again by the next process."""
    state = make_state(tmp_path, always)
    (tmp_path / "samples.jsonl").write_text("{}\n")
    take(state, 3)
    with pytest.raises(Stopped), state.changing_nothing(3, 10, "steps", lambda: Snapshot({}, RECORD), []):
        with (tmp_path / "samples.jsonl").open("a") as file:
            file.write('{"half": 1}\n')
        stopping.arrive(15)
    assert (tmp_path / "samples.jsonl").read_text() != "{}\n"
    make_state(tmp_path, always).resume([])
    assert (tmp_path / "samples.jsonl").read_text() == "{}\n"


def test_models_of_later_updates_than_the_state_are_removed(tmp_path, always):
    state = make_state(tmp_path, always)
    take(state, 4)
    for step in (2, 4, 6):
        states.snapshot_folder(tmp_path, step).mkdir(parents=True)
    make_state(tmp_path, always)
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["2", "4"]
    make_state(tmp_path, always, key="other")
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_none_is_kept_where_nobody_wants_one(tmp_path):
    state = make_state(tmp_path, every_seconds=0)
    take(state, 5)
    assert not (tmp_path / "state").exists() and state.resume([]) is None
    with pytest.raises(Stopped), state.changing_nothing(5, 10, "steps", Snapshot, []):
        stopping.arrive(15)
    assert not (tmp_path / "state").exists()
    with pytest.raises(Stopped):  # nothing would be saved, so nothing waits
        stopping.arrive(15)


def test_a_stop_signal_waits_for_the_end_of_the_update_and_a_second_one_does_not(tmp_path):
    state = make_state(tmp_path)
    with pytest.raises(Stopped):  # no update is done yet: there is nothing to lose
        stopping.arrive(15)
    take(state, 1)
    stopping.arrive(15)
    with pytest.raises(Stopped) as stopped:
        take(state, 2)
    assert stopped.value.exit_code == 143
    assert states.how_far(tmp_path).done == 2
    with pytest.raises(Stopped):
        stopping.arrive(2)


def test_a_signal_is_obeyed_within_work_that_changes_nothing_once_that_is_saved(tmp_path):
    """A rollout: nothing waits for its end, and what was before it is kept, whenever the last state was."""
    state = make_state(tmp_path)
    arguments = 3, 10, "steps", lambda: Snapshot(ARRAYS, RECORD), ["odd"]
    with state.changing_nothing(*arguments):
        pass
    assert states.how_far(tmp_path) is None
    take(state, 3)
    with state.changing_nothing(*arguments):
        pass
    stopping.arrive(15)  # waits again after it
    assert stopping.requested() == 15
    with pytest.raises(Stopped), state.changing_nothing(*arguments):
        raise AssertionError("a signal that came before is obeyed before anything begins")
    (tmp_path / "state/3/manifest.json").unlink()
    again = make_state(tmp_path)
    take(again, 2)
    with pytest.raises(Stopped), again.changing_nothing(*arguments):
        stopping.arrive(2)
    assert states.how_far(tmp_path).done == 3
    found = make_state(tmp_path).resume([])
    assert found.arrays.keys() == ARRAYS.keys()


def test_a_signal_after_the_last_update_is_obeyed_at_the_end_of_the_loop(tmp_path):
    state = make_state(tmp_path)
    take(state, 1)
    stopping.arrive(2)
    with pytest.raises(Stopped):
        state.finish()
    state.finish()


@pytest.mark.parametrize(
    "fault", ["flip", "cut", "missing", "no manifest", "half a manifest", "a changed one", "another key"]
)
def test_a_damaged_state_is_named_and_the_one_before_taken(tmp_path, always, fault):
    state = make_state(tmp_path, always)
    take(state, 1, {"step": 1})
    take(state, 2, {"step": 2})
    folder = tmp_path / "state" / "2"
    arrays, manifest = folder / "arrays.safetensors", folder / "manifest.json"
    content = arrays.read_bytes()
    if fault == "flip":
        arrays.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif fault == "cut":
        arrays.write_bytes(content[:-1])
    elif fault == "missing":
        arrays.unlink()
    elif fault == "no manifest":
        manifest.unlink()
    elif fault == "half a manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif fault == "a changed one":
        manifest.write_text(manifest.read_text().replace('"step": 2', '"step": 3'))
    else:
        states.write_manifest(folder, {**states.read_manifest(folder), "key": "other"})
    said = []
    found = make_state(tmp_path, always, said=said).resume([])
    assert found.record == {"step": 1}
    if fault == "another key":
        assert said == []
    else:
        (line,) = said
        assert line.startswith("the state state/2 is damaged: ") and line.endswith("; going on from the one before")


def test_logs_are_cut_to_where_they_were(tmp_path, always):
    """And what the set-up of the new process logged again with them."""
    log, samples = tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl"
    log.write_text("1\n2\n")
    state = make_state(tmp_path, always)
    log.write_text("1\n2\n")
    take(state, 2, warnings=["rows set aside", "step 2: odd"])
    log.write_text("1\n2\n3\n")
    samples.write_text("later\n")
    again = make_state(tmp_path, always)
    log.write_text(log.read_text() + "1\n")
    warnings = ["rows set aside", "new"]
    again.resume(warnings)
    assert log.read_text() == "1\n2\n" and not samples.exists()
    assert warnings == ["rows set aside", "step 2: odd", "new"]


def test_a_log_that_lost_its_end_belongs_to_no_state(tmp_path, always):
    state = make_state(tmp_path, always)
    (tmp_path / "metrics.jsonl").write_text("1\n2\n")
    take(state, 2)
    (tmp_path / "metrics.jsonl").write_text("1\n")
    said = []
    assert make_state(tmp_path, always, said=said).resume([]) is None
    assert "metrics.jsonl is shorter than it was" in said[0]
    assert not (tmp_path / "metrics.jsonl").exists()  # the stage starts over


def test_parts_are_made_once_and_what_comes_after_a_loop_is_not_kept(tmp_path, always):
    made = []

    def part(number):
        return lambda: made.append(number) or {"ids": np.full(2, number)}

    state = make_state(tmp_path, always)
    for number in (0, 1):
        state.part(f"rollout/{number}", part(number), 3)
    state._wait()
    assert str(states.how_far(tmp_path)) == "2 of 3 parts"
    again = make_state(tmp_path, always)
    found = [again.part(f"rollout/{number}", part(number), 3)["ids"].tolist() for number in (0, 1, 2)]
    assert found == [[0, 0], [1, 1], [2, 2]] and made == [0, 1, 2]
    assert again.resume([]) is None
    take(again, 5)
    third = make_state(tmp_path, always)
    assert third.resume([]).record["step"] == 7
    assert third.part("rollout/1", part(1))["ids"].tolist() == [1, 1]
    take(third, 6)
    third.part("judge/0", part(9))
    third.part("judge/0", part(9))
    assert made == [0, 1, 2, 9, 9]


def test_what_was_paid_for_is_on_disk_before_the_next_is_asked_for(tmp_path):
    state = make_state(tmp_path, every_seconds=1e9)
    state.part("rollout/0", lambda: {"ids": np.zeros(2)})
    assert states.how_far(tmp_path) is None
    state.part("judge/0", lambda: {"ids": np.ones(2)}, at_once=True)
    found = make_state(tmp_path, every_seconds=1e9)
    assert found.part("judge/0", pytest.fail)["ids"].tolist() == [1, 1]
    assert found.part("rollout/0", pytest.fail)["ids"].tolist() == [0, 0]


def test_no_room_is_an_error_of_the_disk_that_says_what_to_do(tmp_path, always, monkeypatch):
    """The arrays have 35 bytes, and two states and one that is being written need room."""
    free = [105]
    monkeypatch.setattr(state_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[0]})())
    take(make_state(tmp_path / "enough", always), 1)
    free[0] = 104
    with pytest.raises(DiskError, match=r"MiB are needed for 2 and one .* free. .*every_seconds: 0"):
        take(make_state(tmp_path / "short", always), 1)


def test_what_the_writer_met_is_raised_in_the_loop(tmp_path, always, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_module, "write_state", full)
    state = make_state(tmp_path, always)
    with pytest.raises(DiskError, match="No space left"):
        take(state, 1)
    assert not list((tmp_path / "state").iterdir())


def test_a_copy_without_room_in_memory_is_written_while_the_loop_waits(tmp_path, always, monkeypatch):
    monkeypatch.setattr(state_module, "available_memory", lambda: 10)
    live = []

    def read(value):
        live.append(value)
        return np.full(3, value, np.float32)

    sources = {f"w{i}": Source((3,), np.dtype(np.float32), lambda i=i: read(i)) for i in range(3)}
    state = make_state(tmp_path, always)
    state.checkpoint(1, 10, "updates", lambda: Snapshot(sources, {}), [])
    assert state._writer is None and sorted(live) == [0, 1, 2] and state.figures()["taken"] == 1
    assert make_state(tmp_path, always).resume([]).arrays["w2"].tolist() == [2, 2, 2]


def test_the_seconds_of_all_processes_are_counted(tmp_path, always, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state = make_state(tmp_path, always)
    take(state, 1)
    now[0] += 40
    take(state, 2)
    again = make_state(tmp_path, always)
    assert again.seconds_before == 40
    take(again, 3)
    now[0] += 5
    take(again, 4)
    assert states.how_far(tmp_path).seconds == 45


def test_a_stage_that_fails_three_times_at_one_state_starts_over(tmp_path, always):
    state = make_state(tmp_path, always)
    assert not states.count_failure(tmp_path, 3)  # nothing is kept
    take(state, 1)
    assert [states.count_failure(tmp_path, 3) for _ in range(2)] == [True, True]
    take(state, 2)
    assert [states.count_failure(tmp_path, 3) for _ in range(3)] == [True, True, False]
    (tmp_path / states.FAILURES_FILE).write_text("{")
    assert states.count_failure(tmp_path, 3)


def test_only_what_is_gone_on_from_is_kept(tmp_path, always):
    take(make_state(tmp_path, always), 1)
    for name in ("stage.json", "metrics.jsonl", "final.json", "error.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / ".model.writing").mkdir()
    states.keep_only_state(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"state", "stage.json", "metrics.jsonl"}
    states.count_failure(tmp_path, 3)
    states.drop_states(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"stage.json", "metrics.jsonl"}
    assert states.how_far(tmp_path) is None


def test_a_manifest_says_what_it_holds(tmp_path, always):
    take(make_state(tmp_path, always), 3)
    manifest = json.loads((tmp_path / "state/3/manifest.json").read_text())
    assert manifest["versions"] == {"numpy": "1"} and manifest["key"] == "key"
    file = tmp_path / "state/3/arrays.safetensors"
    assert manifest["files"]["arrays.safetensors"]["bytes"] == file.stat().st_size
