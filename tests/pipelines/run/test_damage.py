"""Each file of a finished stage, damaged in each way: it is named, that stage alone runs again, and the run is what it
was."""

import pytest
from damage import DAMAGES, damage
from stand_in_runs import OTHER, SCENARIOS, STAGES, Place

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("damage: bit flip, cut, deletion of each file")]
HOWS = [*(pytest.param(how, marks=pytest.mark.slow) for how in DAMAGES[:2] + DAMAGES[3:]), DAMAGES[2]]
FILES = ("stage.json", "final.json", "files.json", "metrics.jsonl", "started", "model/config.json")


@pytest.fixture
def place(tmp_path, stand_ins):
    place = Place(tmp_path / "place", SCENARIOS["a fresh run"])
    place.run()
    return place


def test_these_are_all_files(place):
    folder = place.out / "stages/sft"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(FILES)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_its_stage_made_again(place, stage, name, how):
    before, models = place.contents(), place.finished()
    damage(place.out / "stages" / stage / name, how)
    (line,) = place.run(verify=True)
    named = name if (name, how) != ("files.json", "a bit in the middle") else "has other contents"  # than it says
    assert stage in line.split(" (")[0] and named in line
    assert place.contents() == before and place.finished() == models
    assert place.run(verify=True) == []


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", FILES)
def test_a_kept_result_that_is_damaged_is_made_again(place, name, how):
    """Nothing damaged is taken back, also where no later stage reads it."""
    models = place.finished()
    place.run(OTHER)
    (kept,) = (place.out / "kept").glob("sft-*")
    damage(kept / name, how)
    (line,) = place.run()
    assert "sft" in line
    if name == "model/config.json" and how in DAMAGES[:3]:  # the size alone says nothing
        assert f"kept/{kept.name}: model/config.json has other contents than were written" in line
    assert place.finished() == models and place.run() == []
