"""What a run does with stages that an earlier one did not finish."""

import json

import pytest

from pipelines.host import states
from pipelines.host.errors import ConfigError, DiskError, InternalError, Stopped
from pipelines.run import planning, unfinished
from pipelines.workflow import loading as workflow

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("unfinished work is not dropped without being asked")]


@pytest.fixture
def run(workflow_file, tmp_path):
    return Run(workflow_file, tmp_path / "run")


class Run:
    """A run folder, its plan, and stages that seem to have begun in it."""

    def __init__(self, file, folder):
        self.file, self.folder = file, folder

    def plan(self, *overrides):
        loaded = workflow.load(self.file, overrides)
        return planning.plan(loaded.workflow, loaded.base_folder, self.folder)

    def begin(self, name, seconds, *overrides, seed=None, key=None):
        """A stage of which 340 of 1,000 updates are done."""
        stage = next((one for one in self.plan(*overrides) if one.name == name), None)
        place = self.folder / "stages" if seed is None else self.folder / "seeds" / str(seed) / "stages"
        partial = states.partial_of(place / name)
        (partial / "state/340").mkdir(parents=True)
        key = key or stage.key
        manifest = {"key": key, "step": 340, "done": 340, "of": 1000, "unit": "updates", "seconds": seconds}
        states.write_manifest(partial / "state/340", manifest)
        about = {"key": key, "key_parts": None if stage is None else stage.parts}
        (partial / "stage.json").write_text(json.dumps(about))
        return partial


def test_a_stage_under_the_same_key_is_gone_on_with(run):
    partial = run.begin("sft", 5000)
    planned = run.plan()
    unfinished.settle(run.folder, planned)
    assert partial.exists()
    stage = next(one for one in planned if one.name == "sft")
    assert stage.resumes and str(stage.unfinished) == "340 of 1000 updates"
    assert not any(one.resumes for one in planned if one.name != "sft")


def test_more_than_a_minute_of_work_is_not_dropped_without_being_asked(run):
    partial = run.begin("sft", 61)
    with pytest.raises(ConfigError) as error:
        unfinished.settle(run.folder, run.plan("stages.sft.learning_rate=0.5"))
    assert str(error.value) == (
        "sft: 340 of 1000 updates are done, 1:01 of work; config changed: learning_rate 0.0001 -> 0.5. Put that back, "
        "or start it over: --restart sft"
    )
    assert partial.exists() and error.value.exit_code == 2
    unfinished.settle(run.folder, run.plan("stages.sft.learning_rate=0.5"), ["sft"])
    assert not partial.exists()


def test_a_minute_is(run):
    partial = run.begin("sft", 60)
    unfinished.settle(run.folder, run.plan("stages.sft.learning_rate=0.5"))
    assert not partial.exists()


def test_restart_starts_over_under_the_same_key_too(run):
    partial, other = run.begin("sft", 5000), run.begin("other", 5000)
    unfinished.settle(run.folder, run.plan(), ["sft"])
    assert not partial.exists() and other.exists()
    with pytest.raises(ConfigError, match=r"--restart oter: there is no stage 'oter'.*other"):
        unfinished.settle(run.folder, run.plan(), ["oter"])
    assert other.exists()


def test_a_stage_that_is_no_longer_in_the_workflow_is_named(run):
    partial, seed = run.begin("gone", 300, key="k"), run.begin("gone_too", 300, seed=18, key="k")
    (run.folder / "workflow.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError) as error:
        unfinished.settle(run.folder, run.plan())
    assert "gone: 340 of 1000 updates are done, 5:00 of work, and the workflow has no such stage" in str(error.value)
    assert "gone_too, seed 18: 340 of 1000" in str(error.value)
    unfinished.settle(run.folder, run.plan(), ["gone", "gone_too"])
    assert not partial.exists() and not seed.exists()


def test_a_stage_without_a_state_is_dropped(run):
    partial = states.partial_of(run.folder / "stages/sft")
    partial.mkdir(parents=True)
    (partial / "metrics.jsonl").write_text("{}")
    unfinished.settle(run.folder, run.plan())
    assert not partial.exists()


@pytest.mark.parametrize(("error", "times"), [(Stopped(15), 5), (DiskError("full"), 5), (InternalError("killed"), 2)])
def test_what_is_left_after_a_failure(run, error, times):
    partial = run.begin("sft", 5000)
    (partial / "model").mkdir()
    for _ in range(times):
        assert str(unfinished.after_failure(partial, error)) == "340 of 1000 updates"
        assert {path.name for path in partial.iterdir()} <= {"state", "stage.json", "failures.json"}
    again = unfinished.after_failure(partial, error)
    assert (again is None) == (times == 2) == (not partial.exists())


def test_nothing_is_left_of_a_stage_that_left_nothing(run):
    assert unfinished.after_failure(run.folder / "stages/.sft.partial", InternalError("killed")) is None
