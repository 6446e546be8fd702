"""Each file of a state, and each byte of its manifest, damaged: it is named, and the state before is gone on from."""

import json
import shutil

import numpy as np
import pytest
from damage import DAMAGES, damage

from pipelines.host import states
from pipelines.training import state as state_module
from pipelines.training.state import StageState
from pipelines.training.state_files import Snapshot, read_state

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("damage: bit flip, cut, deletion of each file")]
FILES = ("state/2/arrays.safetensors", "state/2/manifest.json", "metrics.jsonl", "samples.jsonl")


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A stage's folder with the states of steps 1 and 2, and logs that have a row a step."""
    monkeypatch.setattr(state_module, "COST_SHARE", 0.0)
    state = StageState(tmp_path / "stage", "key", {"numpy": "1"}, every_seconds=1e-9)
    (tmp_path / "stage").mkdir()
    for step in (1, 2):
        for name in state_module.LOGS:
            with (tmp_path / "stage" / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "text": f"of {name} at {step}"}) + "\n")
        arrays = {"weights": np.arange(6.0) / step, "iteration": np.array(step)}
        record = {"step": step, "losses": [1 / 3, float("nan")]}
        state.checkpoint(step, 10, "updates", lambda found=(arrays, record): Snapshot(*found), [])
        state._wait()
    return tmp_path / "stage"


def found_in(output):
    """The step that is gone on from, and what was said."""
    said = []
    saved = StageState(output, "key", {"numpy": "1"}, warn=said.append).resume([])
    return 0 if saved is None else saved.record["step"], said


def test_these_are_all_files(output):
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert found == {*FILES, *(name.replace("state/2", "state/1") for name in FILES)}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_state_before_taken(output, name, how):
    is_in_both = name.endswith(".jsonl") and how in ("first bit", "deleted")  # a log goes on
    damage(output / name, how)
    step, said = found_in(output)
    assert step == (0 if is_in_both else 1)
    assert len(said) == 2 - step and name.rpartition("/")[2] in said[0]
    assert said[0].startswith("the state state/2 is damaged: ")


@pytest.mark.parametrize("name", ["arrays.safetensors", "manifest.json"])
def test_a_bit_of_each_byte(output, tmp_path, record_property, name):
    """One that leaves what is read as it was, as one of a blank between two values, may pass."""
    content = (output / "state/2" / name).read_bytes()
    whole = states.read_manifest(output / "state/2")
    named = 0
    for at in range(len(content)):
        (output / "state/2" / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            read_state(output / "state/2")
        except (ValueError, KeyError, TypeError) as error:
            named += name in str(error)
        else:
            assert repr(states.read_manifest(output / "state/2")) == repr(whole), f"byte {at}"
    record_property("cases", len(content))
    assert named > 0.99 * len(content)


@pytest.mark.parametrize("damaged", [("1",), ("2",), ("1", "2")])
def test_the_stage_starts_over_where_none_is_whole(output, damaged):
    for one in damaged:
        damage(output / "state" / one / "arrays.safetensors", "last bit")
    assert found_in(output)[0] == {("1",): 2, ("2",): 1, ("1", "2"): 0}[damaged]


def test_a_state_without_its_digest_is_none(output):
    """As an older version wrote it."""
    path = output / "state/2/manifest.json"
    path.write_text(json.dumps(states.read_manifest(path.parent)))
    step, (line,) = found_in(output)
    assert step == 1 and "manifest.json has other contents than were written" in line
    shutil.rmtree(path.parent)
    assert found_in(output) == (1, [])
