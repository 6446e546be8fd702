"""Runs of several seeds with stand-in stages: folders, what is read from where, what is skipped, and that a seed's
stages are those of a plain run with that seed."""

import hashlib
import json
import shutil

import pytest

from pipelines.host.errors import DataError
from pipelines.run import keys, planning, runner
from pipelines.workflow import loading as workflow

pytestmark = pytest.mark.no_backend

STAGES = ("base", "sft", "other", "evaluation")


@pytest.fixture
def start(workflow_file, stand_ins, tmp_path):
    """A function that loads and runs the workflow; returns the stages that ran."""

    def start(*overrides, out=tmp_path / "run", in_process=True, **seeds):
        said = []
        loaded = workflow.load(workflow_file, overrides, **seeds)
        runner.run(loaded, out, in_process=in_process, quiet=True, say=said.append)
        return [line.split("] ")[1].rpartition(" (")[0] for line in said if "because" in line]

    return start


@pytest.fixture
def plan(workflow_file, tmp_path):
    """A function from overrides to the plan: label → stage."""

    def plan(*overrides, out=tmp_path / "run", **seeds):
        loaded = workflow.load(workflow_file, overrides, **seeds)
        return {one.label: one for one in planning.plan(loaded.workflow, loaded.base_folder, out)}

    return plan


def written(folder, name):
    """What a stand-in's model says: its name, seed, settings and the digests of what it read."""
    return json.loads((folder / "stages" / name / "model/config.json").read_text())


def digest(folder, name):
    return hashlib.sha256((folder / "stages" / name / "model/config.json").read_bytes()).hexdigest()


def stages_in(folder):
    return {path.name for path in (folder / "stages").iterdir()}


@pytest.mark.parametrize("in_process", [True, False])
def test_stages_before_run_once_and_the_others_once_a_seed(start, tmp_path, in_process):
    assert start(seeds="3,4", seeds_from="sft", in_process=in_process) == [
        "base", "sft, seed 3", "other, seed 3", "evaluation, seed 3", "sft, seed 4", "other, seed 4",
        "evaluation, seed 4",
    ]  # fmt: skip
    run = tmp_path / "run"
    parts = {seed: run / "seeds" / str(seed) for seed in (3, 4)}
    names = {"workflow.yaml", "workflow.lock", "stages", "seeds", "summary.json", "report.html"}
    assert {path.name for path in run.iterdir()} == names | {".lock"}
    assert stages_in(run) == {"base"} and {path.name for path in (run / "seeds").iterdir()} == {"3", "4"}
    assert written(run, "base")["seed"] == 3
    for seed, part in parts.items():
        assert {path.name for path in part.iterdir()} == {"stages", "summary.json", "report.html"}
        assert stages_in(part) == {"sft", "other", "evaluation"}
        # Each reads the stage that runs once, or that of its own seed. Its name, which keys its draws, stays.
        sft, evaluation = written(part, "sft"), written(part, "evaluation")
        assert (sft["stage"], sft["seed"], sft["inputs"]) == ("sft", seed, {"base": digest(run, "base")})
        assert evaluation["inputs"] == {name: digest(part, name) for name in ("sft", "other")}
        assert json.loads((part / "stages/sft/stage.json").read_text())["inputs"] == {"base": "../../../stages/base"}
        assert json.loads((part / "stages/evaluation/stage.json").read_text())["inputs"] == {
            "sft": "sft",
            "other": "other",
        }
        assert json.loads((part / "summary.json").read_text())["seed"] == seed
        assert list(json.loads((part / "summary.json").read_text())["stages"]) == list(STAGES)
    assert digest(parts[3], "evaluation") != digest(parts[4], "evaluation")


def test_a_whole_chain_of_seeds_is_as_many_plain_runs(start, plan, tmp_path):
    start(seeds="3,8")
    assert not (tmp_path / "run/stages").exists()
    for seed in (3, 8):
        plain, part = tmp_path / f"plain_{seed}", tmp_path / "run/seeds" / str(seed)
        start(f"seed={seed}", out=plain)
        for name in STAGES:
            ours, theirs = part / "stages" / name, plain / "stages" / name
            assert (ours / "model/config.json").read_bytes() == (theirs / "model/config.json").read_bytes()
            assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
            about = [json.loads((folder / "stage.json").read_text()) for folder in (ours, theirs)]
            for one in about:
                del one["seconds"], one["peak_memory_gib"], one["states"]
            assert about[0] == about[1]
        assert {one.action for one in plan(f"seed={seed}", out=plain).values()} == {"skip"}


def test_the_key_of_a_stage_is_that_of_a_plain_run_from_the_same_stages(start, plan):
    """Where the seed is the workflow's own, a plain run has the same stages before it."""
    start(seeds="3,4", seeds_from="other")
    seeds, plain = plan(seeds="3,4", seeds_from="other"), plan()
    assert [seeds[f"{name}, seed 3"].key for name in ("other", "evaluation")] == [
        plain[name].key for name in ("other", "evaluation")
    ]
    assert keys.changes(plain["other"].parts, seeds["other, seed 4"].parts) == ["seed changed: 3 -> 4"]
    assert keys.changes(plain["evaluation"].parts, seeds["evaluation, seed 4"].parts) == [
        "seed changed: 3 -> 4", "input changed: other",
    ]  # fmt: skip
    # A seed that equals `seed` has its own folder all the same.
    assert [plain[name].reasons for name in STAGES] == [[], [], ["missing"], ["missing"]]


def test_what_is_finished_is_skipped_pair_by_pair(start, plan):
    seeds = {"seeds": "3,4", "seeds_from": "other"}
    start(**seeds)
    assert start(**seeds) == []
    assert start(seeds="5,4", seeds_from="other") == ["other, seed 5", "evaluation, seed 5"]
    assert start(**seeds) == [], "a seed that is left out for a while is kept"
    change = "stages.other.epochs=2"
    assert {label: one.reasons for label, one in plan(change, **seeds).items() if one.reasons} == {
        "other, seed 3": ["config changed: epochs 1.0 -> 2.0"], "evaluation, seed 3": ["input changed: other"],
        "other, seed 4": ["config changed: epochs 1.0 -> 2.0"], "evaluation, seed 4": ["input changed: other"],
    }  # fmt: skip
    # The workflow's own seed is that of the stages that run once, and reaches the others through them.
    assert {label: one.reasons for label, one in plan("seed=7", **seeds).items()} == {
        "base": ["seed changed: 3 -> 7"], "sft": ["seed changed: 3 -> 7", "input changed: base"],
        "other, seed 3": ["input changed: base"], "evaluation, seed 3": ["input changed: sft", "input changed: other"],
        "other, seed 4": ["input changed: base"], "evaluation, seed 4": ["input changed: sft", "input changed: other"],
    }  # fmt: skip


def test_a_stage_that_once_ran_for_a_seed_is_not_read_where_it_now_runs_once(start, tmp_path):
    start("stages.base.epochs=2", seeds="4", seeds_from="base")
    start(seeds="4", seeds_from="sft")
    run = tmp_path / "run"
    assert (run / "seeds/4/stages/base").is_dir()
    assert written(run / "seeds/4", "sft")["inputs"] == {"base": digest(run, "base")}
    stages = json.loads((run / "seeds/4/summary.json").read_text())["stages"]
    assert stages["base"]["key"] == json.loads((run / "stages/base/stage.json").read_text())["key"]


@pytest.mark.parametrize("in_process", [True, False])
def test_a_failure_in_one_seed_stops_and_the_next_run_goes_on(start, tmp_path, monkeypatch, in_process):
    monkeypatch.setenv("STAND_IN", '{"other@4": "data"}')
    seeds = {"seeds": "3,4,5", "seeds_from": "sft", "in_process": in_process}
    with pytest.raises(DataError, match="rows.jsonl:3: bad JSON"):
        start(**seeds)
    run = tmp_path / "run"
    assert stages_in(run / "seeds/3") == {"sft", "other", "evaluation"} and stages_in(run / "seeds/4") == {"sft"}
    assert (run / "seeds/3/report.html").is_file(), "a finished seed has its report though a later one failed"
    assert not (run / "seeds/5").exists() and not (run / "report.html").exists()
    monkeypatch.setenv("STAND_IN", "{}")
    assert start(**seeds) == [
        "other, seed 4", "evaluation, seed 4", "sft, seed 5", "other, seed 5", "evaluation, seed 5"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "message"), [("bug", "stage 'sft' of seed 4 failed with a bug"), ("killed", "stage 'sft' of seed 4 was")]
)
def test_a_bug_names_the_seed(start, monkeypatch, action, message):
    monkeypatch.setenv("STAND_IN", json.dumps({"sft@4": action}))
    with pytest.raises(Exception, match=message):
        start(seeds="3,4", seeds_from="sft", in_process=False)


def test_left_overs_of_every_seed_are_removed_and_half_replacements_finished(start, tmp_path):
    seeds = {"seeds": "3,4", "seeds_from": "sft"}
    start(**seeds)
    stages = tmp_path / "run/seeds/4/stages"
    (stages / ".sft.partial").mkdir()
    (stages / "other").rename(stages / ".new")
    (stages / "other").mkdir()
    (stages / ".new").rename(stages / "other/.saved")
    (tmp_path / "run/seeds/3/.summary.json.1.tmp").touch()
    left = tmp_path / "run/seeds/9/stages/.sft.partial"
    left.mkdir(parents=True)
    assert start(**seeds) == []
    assert stages_in(tmp_path / "run/seeds/4") == {"sft", "other", "evaluation"} and not left.exists()
    assert not list((tmp_path / "run").rglob("*.tmp")) and not list((tmp_path / "run").rglob(".*.tmp"))


def test_one_stage_of_one_seed_is_made_again_alone(start, tmp_path):
    start(seeds="3,4", seeds_from="sft")
    shutil.rmtree(tmp_path / "run/seeds/4/stages/sft")
    assert start(seeds="3,4", seeds_from="sft") == ["sft, seed 4"]


def test_the_lock_names_what_each_stage_of_each_seed_was_made_of(start, plan, tmp_path):
    start(seeds="3,4", seeds_from="other")
    lock = json.loads((tmp_path / "run/workflow.lock").read_text())
    assert list(lock["stages"]) == ["base", "sft"] and list(lock["seeds"]) == ["3", "4"]
    planned = plan(seeds="3,4", seeds_from="other")
    for seed, stages in lock["seeds"].items():
        assert list(stages) == ["other", "evaluation"]
        for name, parts in stages.items():
            assert parts["key"] == planned[f"{name}, seed {seed}"].key and parts["seed"] == int(seed)
    assert workflow.load(tmp_path / "run/workflow.yaml").workflow.seeds.values == [3, 4]
