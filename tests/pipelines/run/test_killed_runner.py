"""A runner that is killed before every call to the file system: each finished stage is the old or the new one whole,
the next run ends as one that nobody killed, and nothing is left over.

Each run is a forked process that is killed before its n-th call, for n from 0 until it ends by itself; in the quick
tests for some n.
"""

import itertools
import shutil

import pytest
from killed_process import ends_by_itself
from stand_in_runs import SCENARIOS, Place

pytestmark = [pytest.mark.no_backend, pytest.mark.filterwarnings("ignore:.*fork.*")]
ROW = "SIGKILL at every call of the runner and of a state"
EVERY_CALL = pytest.param(1, marks=[pytest.mark.slow, pytest.mark.fault(ROW)])


@pytest.mark.parametrize("step", [EVERY_CALL, 97])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_runner(tmp_path, stand_ins, record_property, name, step):
    before = Place(tmp_path / "before", SCENARIOS[name])
    unbroken = before.copy(tmp_path / "unbroken")
    old = before.finished()
    unbroken.run()
    new, expected = unbroken.finished(), unbroken.contents()
    for n in itertools.count(0, step):
        place = before.copy(tmp_path / "killed")
        if ends_by_itself(place.run, n):
            break
        for stage, found in place.finished().items():
            assert found in (old.get(stage), new[stage]), f"call {n}: {stage}"
        place.run()
        assert place.contents() == expected, f"call {n}"
        assert place.finished() == new, f"call {n}"
        shutil.rmtree(place.folder)
    assert place.contents() == expected
    record_property("cases", n // step)
    assert n >= 40
