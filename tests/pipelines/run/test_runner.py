"""Runs with stand-in stages: folders, keys, what is skipped and what runs again, and why."""

import fnmatch
import json
from pathlib import Path

import pytest

from pipelines.host.errors import ConfigError, DataError, DiskError, InternalError
from pipelines.run import keys, planning, runner, stage_process
from pipelines.workflow import loading as workflow

pytestmark = pytest.mark.no_backend


@pytest.fixture
def start(workflow_file, stand_ins, tmp_path):
    """A function that loads and runs the workflow; returns the lines it said."""

    def start(*overrides, in_process=True, out=tmp_path / "run"):
        said = []
        runner.run(workflow.load(workflow_file, overrides), out, in_process=in_process, quiet=True, say=said.append)
        return said

    return start


def ran(said):
    return [line.split()[1].rstrip(":") for line in said if line.endswith("missing") or "because" in line]


def plan(workflow_file, tmp_path, *overrides):
    loaded = workflow.load(workflow_file, overrides)
    return {stage.name: stage.reasons for stage in planning.plan(loaded.workflow, loaded.base_folder, tmp_path / "run")}


def contents(folder: Path):
    """Every file of a run but times and memory."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (".lock", "started", "files.json"):
            text = path.read_text()
            if path.suffix == ".json":
                value = json.loads(text)
                for part in (value, *(value.get("stages") or {}).values()):
                    for time_or_memory in ("seconds", "peak_memory_gib", "states"):
                        part.pop(time_or_memory, None)
                text = json.dumps(value)
            found[str(path.relative_to(folder))] = text
    return found


def test_a_run_leaves_the_documented_folder_and_nothing_else(start, tmp_path):
    assert ran(start()) == ["base", "sft", "other", "evaluation"]
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "workflow.yaml",
        "workflow.lock",
        "stages",
        "summary.json",
        "report.html",
    }
    assert {path.name for path in (run / "stages").iterdir()} == {"base", "sft", "other", "evaluation"}
    about = json.loads((run / "stages/sft/stage.json").read_text())
    assert about["name"] == "sft" and about["kind"] == "instruction_tuning" and about["backend"] == "jax"
    assert about["seconds"] >= 0 and about["peak_memory_gib"] > 0 and about["config"]["from"] == "base"
    assert {"python", "keras", "numpy", "ml_dtypes", "sentencepiece", "jax", "jaxlib"} == set(about["versions"])
    lock = json.loads((run / "workflow.lock").read_text())
    assert lock["stages"]["sft"]["key"] == about["key"] == keys.key_of(about["key_parts"])
    rows = (run / "stages/sft/metrics.jsonl").read_text().splitlines()
    assert rows == ['{"step": 0, "loss": NaN}', '{"step": 1, "loss": 1.0}', '{"step": 2, "loss": 0.5}']
    assert workflow.load(run / "workflow.yaml").workflow == workflow.load(tmp_path / "w.yaml").workflow


def test_a_finished_run_runs_nothing(start):
    start()
    assert [line.rpartition(": ")[2] for line in start()] == ["finished before, skipped"] * 4


def test_processes_and_one_process_write_the_same(start, tmp_path):
    start(in_process=True, out=tmp_path / "a")
    start(in_process=False, out=tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second
    pids = {(tmp_path / "b/stages" / name / "started").read_text() for name in ("base", "sft", "other", "evaluation")}
    assert len(pids) == 4


def test_a_change_runs_the_stage_and_what_follows_from_it(start, workflow_file, tmp_path):
    start()
    assert plan(workflow_file, tmp_path, "stages.sft.learning_rate=1e-5") == {
        "base": [], "sft": ["config changed: learning_rate 0.0001 -> 1e-05"], "other": [],
        "evaluation": ["input changed: sft"],
    }  # fmt: skip
    before = (tmp_path / "run/stages/evaluation/model/config.json").read_text()
    assert ran(start("stages.sft.learning_rate=1e-5")) == ["sft", "evaluation"]
    assert (tmp_path / "run/stages/evaluation/model/config.json").read_text() != before
    assert ran(start("stages.sft.learning_rate=1e-5")) == []


@pytest.mark.fault("keys: what must matter and what must not")
def test_going_there_and_back_trains_once_each(start, tmp_path, record_property):
    record_property("cases", 3)
    start()
    first = contents(tmp_path / "run/stages")
    assert ran(start("stages.sft.learning_rate=1e-5")) == ["sft", "evaluation"]
    second = contents(tmp_path / "run/stages")
    for expected, overrides in ((first, []), (second, ["stages.sft.learning_rate=1e-5"]), (first, [])):
        said = start(*overrides)
        assert ran(said) == [] and sum("taken back from kept/" in line for line in said) == 2
        assert contents(tmp_path / "run/stages") == expected
    assert len(list((tmp_path / "run/kept").iterdir())) == 2


def test_changed_data_code_versions_seed_backend(start, workflow_file, tmp_path, monkeypatch, all_backends):
    start()
    assert plan(workflow_file, tmp_path, "seed=4")["base"] == ["seed changed: 3 -> 4"]
    assert plan(workflow_file, tmp_path, "backend=torch")["base"][0] == "backend changed: jax -> torch"
    assert plan(workflow_file, tmp_path, "model.config.num_layers=3") == {
        "base": ["config changed: model.config.num_layers 2 -> 3"], "sft": ["input changed: base"],
        "other": ["input changed: base"], "evaluation": ["input changed: sft", "input changed: other"],
    }  # fmt: skip
    texts = tmp_path / "texts.jsonl"
    text = texts.read_text()
    texts.write_text(text.replace("two", "six"))
    assert plan(workflow_file, tmp_path)["base"] == ["data changed: data.path"]
    texts.write_text(text)
    assert plan(workflow_file, tmp_path)["base"] == []
    with monkeypatch.context() as changed:
        changed.setattr(keys, "code_digest", lambda: "other")
        assert plan(workflow_file, tmp_path)["base"] == ["code changed"]
    real = keys.versions
    with monkeypatch.context() as changed:
        changed.setattr(
            keys, "versions", lambda *arguments, **options: {**real(*arguments, **options), "keras": "3.99"}
        )
        assert plan(workflow_file, tmp_path)["base"][0].startswith("versions changed: keras 3.")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert plan(workflow_file, tmp_path)["base"] == ["machine changed: JAX_ENABLE_X64 nothing -> 1"]


def test_only_tables_need_the_version_of_what_reads_them():
    assert "datasets" not in keys.versions("torch") and "datasets" in keys.versions("torch", reads_tables=True)


def test_contents_count_and_not_paths(start, workflow_file, tmp_path):
    start()
    (tmp_path / "texts.jsonl").rename(tmp_path / "moved.jsonl")
    assert plan(workflow_file, tmp_path, "stages.base.data.path=moved.jsonl") == {
        "base": [],
        "sft": [],
        "other": [],
        "evaluation": [],
    }


def test_a_deleted_stage_is_made_again_alone(start, tmp_path):
    import shutil

    start()
    shutil.rmtree(tmp_path / "run/stages/sft")
    assert ran(start()) == ["sft"]


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        ("data", DataError, "rows.jsonl:3: bad JSON"),
        ("config", ConfigError, "no such thing"),
        ("full", DiskError, "cannot write (No space left on device). Finished stages are kept"),
    ],
)
def test_known_errors_come_through_and_leave_no_half_stage(
    start, tmp_path, monkeypatch, in_process, action, error, message
):
    monkeypatch.setenv("STAND_IN", json.dumps({"sft": action}))
    with pytest.raises(error) as caught:
        start(in_process=in_process)
    assert message in str(caught.value)
    assert caught.value.exit_code == error.exit_code
    assert {path.name for path in (tmp_path / "run/stages").iterdir()} == {"base"}
    monkeypatch.setenv("STAND_IN", "{}")
    assert ran(start(in_process=in_process)) == ["sft", "other", "evaluation"]


def test_a_bug_shows_its_traceback(start, monkeypatch, capfd):
    monkeypatch.setenv("STAND_IN", '{"sft": "bug"}')
    with pytest.raises(InternalError, match="stage 'sft' failed with a bug"):
        start(in_process=False)
    assert "RuntimeError: a bug of ours" in capfd.readouterr().err
    with pytest.raises(RuntimeError, match="a bug of ours"):
        start(in_process=True)


def test_a_killed_stage_is_named(start, monkeypatch):
    monkeypatch.setenv("STAND_IN", '{"sft": "killed"}')
    with pytest.raises(InternalError, match=r"stage 'sft' was killed \(signal 9\), most likely because memory ran out"):
        start(in_process=False)


def test_an_old_stage_stays_until_the_new_one_is_finished(start, tmp_path, monkeypatch):
    start()
    before = contents(tmp_path / "run/stages/sft")
    monkeypatch.setenv("STAND_IN", '{"sft": "data"}')
    with pytest.raises(DataError):
        start("stages.sft.learning_rate=1e-5")
    assert contents(tmp_path / "run/stages/sft") == before


def test_left_overs_are_removed_and_half_replacements_finished(start, tmp_path):
    start()
    stages = tmp_path / "run/stages"
    (stages / ".sft.partial").mkdir()
    (stages / ".sft.partial/junk").touch()
    (stages / "other").rename(stages / ".new")
    (stages / "other").mkdir()
    (stages / ".new").rename(stages / "other/.saved")
    (tmp_path / "run/.summary.json.1.tmp").touch()
    assert ran(start()) == []
    assert {path.name for path in stages.iterdir()} == {"base", "sft", "other", "evaluation"}
    assert (stages / "other/stage.json").is_file() and not (stages / "other/.saved").exists()
    assert not list((tmp_path / "run").glob("*.tmp")) and not list((tmp_path / "run").glob(".*.tmp"))


def test_stage_environment(monkeypatch, tmp_path):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEMMA_KERAS_CACHE", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    found = stage_process.environment("jax")
    assert (found["KERAS_BACKEND"], found["JAX_COMPILATION_CACHE_DIR"]) == ("jax", str(tmp_path / "jax"))
    assert (found["TF_CPP_MIN_LOG_LEVEL"], found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) == ("2", "0")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert stage_process.environment("jax")["TF_CPP_MIN_LOG_LEVEL"] == "0"


SHOWS = (
    "cli.py",
    "commands/talk.py",
    "report/page.py",
    "host/activity.py",
    "host/progress.py",
    "stages/evaluation/report/figures.py",
    "stages/toy/report.py",
)
COMPUTES = ("sampling/rollout.py", "stages/evaluation/run.py", "stages/evaluation/config.py", "host/files.py")


@pytest.mark.parametrize("name", [*SHOWS, *COMPUTES])
def test_only_what_computes_makes_a_result_stale(tmp_path, monkeypatch, name):
    package = tmp_path / "pipelines"
    for file in (*SHOWS, *COMPUTES):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text("a = 1\n")
    monkeypatch.setattr(keys, "PACKAGE", package)
    digest = keys.code_digest.__wrapped__
    before = digest()
    (package / name).write_text("a = 2\n")
    assert (digest() == before) == (name in SHOWS)


def test_every_file_that_only_shows_results_is_where_the_digest_leaves_it_out():
    """The patterns meet files: a room that is renamed would come back into the digest without a word."""
    found = [path.relative_to(keys.PACKAGE).as_posix() for path in keys.PACKAGE.rglob("*.py")]
    for pattern in keys.PRESENTATION:
        matched = [name for name in found if fnmatch.fnmatch(name, pattern)]
        assert matched or pattern == "stages/*/report.py", pattern


def _loaded(workflow_file):
    loaded = workflow.load(workflow_file)
    return loaded.workflow, loaded.base_folder
