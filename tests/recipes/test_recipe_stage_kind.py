"""The recipe for a stage kind, followed: the rest of the program knows the kind from its folder and one line."""

import json
import shutil

import pytest
from recipe import ROOT, Recipe

pytestmark = pytest.mark.no_backend

MODEL = ROOT / "tests/parity/cross_backend_oracle/tuned/model"
WORKFLOW = """\
name: rounded
backend: jax
stages:
  first:
    kind: rounding
    source: ./start
    texts: {path: texts.jsonl, text: text}
    storage: {dtype: bfloat16}
  second:
    kind: rounding
    source: first
    texts: {task: small_world, split: pretraining, size: 3}
    storage: {dtype: float16, keep_tokenizer: false}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return Recipe("A stage kind", tmp_path_factory.mktemp("recipe"))


@pytest.fixture
def here(tmp_path):
    """A folder with the workflow, a model and texts."""
    shutil.copytree(MODEL, tmp_path / "start")
    (tmp_path / "texts.jsonl").write_text('{"text": "one two"}\n{"text": "tin cup"}\n')
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    return tmp_path


def test_one_folder_and_one_line(recipe):
    assert recipe.changed == ["pipelines/stages/registry.py"]
    before = (ROOT / recipe.changed[0]).read_text().splitlines()
    after = (recipe.tree / recipe.changed[0]).read_text().splitlines()
    assert len(after) == len(before) + 1


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("source: first", "source: frst", "w.yaml:11:13",
         "'frst' is neither an earlier stage nor a model folder. Did you mean 'first'?"),
        ("source: ./start", "source: second", "w.yaml:6:13", "stage 'second' comes later"),
        ("source: ./start", "source: texts.jsonl", "w.yaml:6:13", "'texts.jsonl' has no model"),
        ("{dtype: float16, keep", "{dtype: float16, kep", "w.yaml:13:31",
         "Did you mean 'keep_tokenizer'? Known here: dtype, keep_tokenizer"),
        ("dtype: bfloat16", "dtype: int8", "w.yaml:8:22", "expected float32 or bfloat16 or float16"),
        ("texts: {path: texts.jsonl", "texts: {path: txts.jsonl", "w.yaml:7:19", "no data file 'txts.jsonl'"),
        ("text: text}", "text: txt}", "w.yaml:7:38", "no column 'txt'. Did you mean 'text'?"),
        ("    storage: {dtype: bfloat16}", "    shortest: 9\n    longest: 3", "w.yaml:8:15", "9 is over longest 3"),
        ("kind: rounding\n    source: first", "kind: roundin\n    source: first", "w.yaml:10:11",
         "Did you mean 'rounding'?"),
    ],
)  # fmt: skip
def test_validate_names_what_is_wrong_and_where(recipe, here, old, new, place, message):
    (here / "w.yaml").write_text(WORKFLOW.replace(old, new))
    done = recipe.command("validate", "w.yaml", cwd=here)
    assert done.returncode in (2, 65), done.stderr
    assert any(place in line and message in line for line in done.stderr.splitlines()), done.stderr


def test_it_is_explained_and_in_the_schema(recipe, here):
    done = recipe.command("explain", "rounding", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "\nReads: policy (`source`), preferences (`texts`).\n\nLeaves for other stages: policy.\n" in done.stdout
    assert "| `longest`  | whole number, at least 1; default 1024 " in done.stdout
    assert "### `storage: {dtype: …}`\n\nHow the weights are stored.\n" in done.stdout
    done = recipe.command("explain", "w.yaml", "second.storage.dtype", cwd=here)
    assert done.stdout.endswith('\n- w.yaml:13:22: `stages.second.storage.dtype: "float16"`\n')
    stage = json.loads(recipe.command("schema", cwd=here).stdout)["$defs"]["Rounding"]
    assert stage["required"] == ["kind", "source", "texts"]


def test_it_runs_is_skipped_and_follows_its_inputs(recipe, here):
    done = recipe.command("run", "w.yaml", "--out", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "stored as  float16" in done.stdout
    first, second = (json.loads((here / f"out/stages/{name}/stage.json").read_text()) for name in ("first", "second"))
    assert first["config"]["source"] == str(here / "start"), "a relative path was not made absolute"
    assert (first["inputs"], second["inputs"]) == ({}, {"first": "first"})
    assert json.loads((here / "out/stages/first/final.json").read_text())["texts"] == 2
    assert not (here / "out/stages/second/model/tokenizer.model").exists()

    report = (here / "out/report.html").read_text()
    assert "<title>second, uses first</title>" in report and report.count('class="arrow"') == 1
    assert "var(--series-4)" in report
    assert json.loads((here / "out/summary.json").read_text())["rounding"]["dtype"] == "float16"

    plan = recipe.command("plan", "w.yaml", "--out", "out", cwd=here).stdout.splitlines()
    assert [line.split()[0] for line in plan[:2]] == ["skip", "skip"]
    config = here / "start" / "config.json"
    config.write_text(config.read_text() + "\n")
    plan = recipe.command("plan", "w.yaml", "--out", "out", cwd=here).stdout.splitlines()
    assert plan[0].endswith("data changed: source") and plan[1].endswith("input changed: first")


def test_its_run_is_loaded_by_the_stage_s_own_process_alone(recipe, here, tmp_path_factory):
    broken = Recipe("A stage kind", tmp_path_factory.mktemp("broken"))
    path = broken.tree / "pipelines/stages/rounding/run.py"
    path.write_text(path.read_text() + "\nraise RuntimeError('loaded')\n")
    assert broken.command("validate", "w.yaml", cwd=here).returncode == 0
    assert broken.command("plan", "w.yaml", cwd=here).returncode == 0
    done = broken.command("run", "w.yaml", "--out", "out", cwd=here)
    assert done.returncode == 70
    assert "RuntimeError: loaded" in done.stderr and "stage 'first' failed with a bug" in done.stderr


def test_a_changed_kind_makes_its_results_stale_and_a_changed_report_does_not(recipe, here, tmp_path_factory):
    edited = Recipe("A stage kind", tmp_path_factory.mktemp("edited"))
    assert edited.command("run", "w.yaml", "--out", "out", "--quiet", cwd=here).returncode == 0

    def actions():
        plan = edited.command("plan", "w.yaml", "--out", "out", cwd=here).stdout.splitlines()
        return [line.split()[0] for line in plan[:2]]

    folder = edited.tree / "pipelines/stages/rounding"
    (folder / "report.py").write_text((folder / "report.py").read_text() + "# a word\n")
    assert actions() == ["skip", "skip"]
    (folder / "run.py").write_text((folder / "run.py").read_text() + "# a word\n")
    assert actions() == ["run", "run"]
