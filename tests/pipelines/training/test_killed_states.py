"""A state of a stage that is killed before every call to the file system, of the process that goes on from the one
before and takes it: the next process finds the state before or the new one, bit by bit, and leaves nothing beside
those that are kept.
"""

import functools
import itertools
import json
import shutil

import numpy as np
import pytest
from killed_process import ends_by_itself

from pipelines.training import state as state_module
from pipelines.training.state import StageState
from pipelines.training.state_files import Snapshot, Source

pytestmark = [
    pytest.mark.fault("SIGKILL at every call of the runner and of a state"),
    pytest.mark.no_backend,
    pytest.mark.filterwarnings("ignore:.*fork.*"),
]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """A state at every place where one can be taken."""
    monkeypatch.setattr(state_module, "COST_SHARE", 0.0)


def snapshot(step: int) -> Snapshot:
    """An array on a device, one on the host, and a record, all of this step."""
    weights = np.random.default_rng(step).normal(size=(3, 5)).astype(np.float32)
    source = Source(weights.shape, weights.dtype, weights.copy)
    return Snapshot({"weights": source, "iteration": np.array(step)}, {"step": step, "losses": [1 / 3] * step})


def go_on(output, step: int) -> None:
    """What a stage does: take back what there is, log up to `step`, take its state."""
    state = StageState(output, "key", {"numpy": "1"}, every_seconds=1e-9, keep=2)
    saved = state.resume([])
    for one in range(0 if saved is None else saved.record["step"], step):
        with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(f'{{"step": {one}}}\n')
    state.checkpoint(step, 10, "updates", lambda: snapshot(step), [])
    state.finish()


def found_in(output) -> tuple[int, str]:
    """The step that a new process would go on from, whose bits must be right; and its log."""
    saved = StageState(output, "key", {"numpy": "1"}).resume([])
    if saved is None:
        assert not (output / "metrics.jsonl").exists()
        return 0, ""
    expected = snapshot(saved.record["step"])
    assert saved.record == expected.record
    assert saved.arrays["weights"].tobytes() == expected.arrays["weights"].read().tobytes()
    assert saved.arrays["iteration"] == saved.record["step"]
    return saved.record["step"], (output / "metrics.jsonl").read_text()


def contents(output) -> dict:
    """Files by name; but for the seconds in a manifest, and its digest."""
    found = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith("manifest.json"):
            found[name] = {**json.loads(found[name]), "seconds": None, "sha256": None}
    return found


@pytest.mark.parametrize("way", ["beside the loop", pytest.param("in the loop", marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 4)), 3])
def test_a_killed_state(tmp_path, monkeypatch, record_property, step, way):
    """The first one, the second, and those in whose place the oldest goes."""
    monkeypatch.setattr(state_module, "available_memory", lambda: 2**30 if way == "beside the loop" else 10)
    before, expected = tmp_path / "before", tmp_path / "expected"
    before.mkdir()
    for one in range(1, step):
        go_on(before, one)
    shutil.copytree(before, expected)
    go_on(expected, step)
    outcomes = []
    for n in itertools.count():
        output = tmp_path / str(n)
        shutil.copytree(before, output)
        if ends_by_itself(functools.partial(go_on, output, step), n):
            break
        shutil.copytree(output, tmp_path / "look")
        outcome, log = found_in(tmp_path / "look")
        shutil.rmtree(tmp_path / "look")
        assert len(log.splitlines()) == outcome, f"call {n}"
        outcomes.append(outcome)
        go_on(output, step)
        assert contents(output) == contents(expected), f"call {n}"
    assert contents(output) == contents(expected)
    assert outcomes[0] == step - 1 and outcomes[-1] == step and outcomes == sorted(outcomes)
    record_property("cases", n)
    assert n > 15
