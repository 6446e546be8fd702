"""Models and data on the hub are read at the commit of the lock; where there is none, at the one that the hub or its
cache names."""

import json

import pytest

from pipelines import cli
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import find_path
from pipelines.run import hub_commits, hub_names, keys, planning, runner, stage_main
from pipelines.workflow import loading as workflow

pytestmark = pytest.mark.no_backend

TEXT = """\
name: hub
backend: jax
model: org/gemma
stages:
  sft:
    kind: instruction_tuning
    data: {path: org/rows, prompt: prompt, completion: completion}
  evaluation:
    kind: evaluation
    compare: [sft]
    data: {task: small_world, split: heldout, size: 9}
"""
ROWS = '{"prompt": "a", "completion": "%s"}\n'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def uploaded(local_hub):
    """A hub with the model and the data of `TEXT`; the first commits of the two."""
    model = local_hub.commit("org/gemma", {"config.json": "{}"})
    return local_hub, model, local_hub.commit("datasets/org/rows", {"train.jsonl": ROWS % "first"})


@pytest.fixture
def start(file, stand_ins, tmp_path):
    """A function that runs the workflow; returns the stages that ran."""

    def start(*overrides, out="run", in_process=True, **options):
        said = []
        loaded = workflow.load(file, overrides)
        runner.run(loaded, tmp_path / out, in_process=in_process, quiet=True, say=said.append, **options)
        return [line.split()[1] for line in said if "because" in line]

    return start


def plan(file, folder, *overrides):
    loaded = workflow.load(file, overrides)
    planned = planning.plan(loaded.workflow, loaded.base_folder, folder)
    return {stage.name: stage for stage in planned}


def lock_of(folder):
    return json.loads((folder / "workflow.lock").read_text())


def about(folder, stage="sft"):
    return json.loads((folder / "stages" / stage / "stage.json").read_text())


@pytest.mark.parametrize("in_process", [True, False])
def test_the_lock_the_key_and_the_stage_name_the_commits(start, uploaded, tmp_path, in_process):
    _, model, data = uploaded
    assert start(in_process=in_process) == ["sft", "evaluation"]
    assert lock_of(tmp_path / "run")["hub"] == {
        "org/gemma": {"kind": "model", "repository": "org/gemma", "revision": "main", "commit": model},
        "datasets/org/rows": {"kind": "data", "repository": "org/rows", "revision": "main", "commit": data},
    }
    found = about(tmp_path / "run")
    assert found["key_parts"]["data"] == {"data.path": data, "model": model}
    assert "datasets" in found["versions"]
    assert found["model"] == f"org/gemma@{model}"
    assert found["config"]["data"]["path"] == f"org/rows@{data}" and found["config"]["data"]["revision"] is None
    # The workflow's copy says what was asked for.
    assert workflow.load(tmp_path / "run/workflow.yaml").workflow.model == "org/gemma"


def test_main_that_has_moved_changes_no_run_that_has_a_lock(start, uploaded, file, tmp_path):
    hub, model, _ = uploaded
    start()
    moved = hub.commit("org/gemma", {"config.json": "{ }"})
    asked = len(hub.asked)
    assert start() == []
    assert start("stages.sft.learning_rate=1e-5") == ["sft", "evaluation"]
    assert about(tmp_path / "run")["model"] == f"org/gemma@{model}" and len(hub.asked) == asked
    # Another run reads what is there now, and the first one does without the lock's entry: its stage is not finished.
    assert start(out="other") == ["sft", "evaluation"]
    assert about(tmp_path / "other")["model"] == f"org/gemma@{moved}"
    lock = lock_of(tmp_path / "run")
    del lock["hub"]["org/gemma"]
    (tmp_path / "run/workflow.lock").write_text(json.dumps(lock))
    stages = plan(file, tmp_path / "run", "stages.sft.learning_rate=1e-5")
    assert stages["sft"].reasons == ["data changed: model"]
    assert stages["evaluation"].reasons == ["input changed: sft"]
    assert start("stages.sft.learning_rate=1e-5") == ["sft", "evaluation"]
    assert lock_of(tmp_path / "run")["hub"]["org/gemma"]["commit"] == moved


def test_data_that_have_moved_are_read_anew_without_a_lock_alone(start, uploaded, file, tmp_path):
    hub, _, _ = uploaded
    start()
    moved = hub.commit("datasets/org/rows", {"train.jsonl": ROWS % "second"})
    assert start() == []
    (tmp_path / "run/workflow.lock").unlink()
    assert plan(file, tmp_path / "run")["sft"].reasons == ["data changed: data.path"]
    assert start() == ["sft", "evaluation"]
    assert about(tmp_path / "run")["config"]["data"]["path"] == f"org/rows@{moved}"


def test_the_same_commit_in_another_spelling_is_no_change(start, uploaded, file, tmp_path):
    hub, model, data = uploaded
    hub.refs["org/gemma", "v1"] = model
    start()
    for spelling in (f"org/gemma@{model}", "hf://org/gemma", "org/gemma@v1"):
        assert plan(file, tmp_path / "run", f"model={spelling}")["sft"].reasons == [], spelling
    for key in (f"path=org/rows@{data}", f"revision={data}"):
        assert plan(file, tmp_path / "run", f"stages.sft.data.{key}")["sft"].reasons == [], key
    other = hub.commit("org/gemma", {"config.json": "{}"}, branch="v2")
    assert plan(file, tmp_path / "run", "model=org/gemma@v2")["sft"].reasons == ["data changed: model"]
    assert plan(file, tmp_path / "run", f"model=org/gemma@{other}")["sft"].hub["model"].commit == other
    # Of two files of one commit the key says which.
    assert plan(file, tmp_path / "run", "model=org/gemma/a.gguf")["sft"].reasons == [
        "config changed: model org/gemma -> org/gemma/a.gguf"
    ]


def test_a_commit_in_full_and_a_lock_ask_nobody(start, uploaded, file, tmp_path):
    hub, model, _ = uploaded
    stages = plan(file, tmp_path / "new", f"model=org/gemma@{COMMIT}", f"stages.sft.data.revision={COMMIT}")
    assert stages["sft"].parts["data"] == {"data.path": COMMIT, "model": COMMIT} and hub.asked == []
    start()
    hub.stop()
    assert plan(file, tmp_path / "run")["sft"].parts["data"]["model"] == model


def test_without_a_network_the_cache_says_the_commit(start, local_hub, file, tmp_path):
    local_hub.stop()
    local_hub.put_into_cache("org/gemma", COMMIT, {"config.json": "{}"})
    local_hub.put_into_cache("datasets/org/rows", COMMIT[::-1], {"README.md": ""}, refs=["main", "v1"])
    assert start("stages.sft.data.revision=v1") == ["sft", "evaluation"]
    assert about(tmp_path / "run")["key_parts"]["data"] == {"data.path": COMMIT[::-1], "model": COMMIT}
    assert lock_of(tmp_path / "run")["hub"]["datasets/org/rows@v1"]["revision"] == "v1"


def test_what_was_asked_is_known_later_without_a_network(start, uploaded, tmp_path):
    """The revision's name is kept in the hub's cache too, although stages ask for the commit alone."""
    hub, model, data = uploaded
    hub.refs["org/gemma", "v1"] = model
    hub.commit("org/gemma", {"adapter_config.json": "{}"})  # main, which is not what is wanted
    start("model=org/gemma@v1")
    hub.put_into_cache("org/gemma", model, {"config.json": "{}"}, refs=[])  # as a real stage would have
    hub.put_into_cache("datasets/org/rows", data, {"README.md": ""}, refs=[])
    hub.stop()
    assert start("model=org/gemma@v1", out="other") == ["sft", "evaluation"]
    assert about(tmp_path / "other")["model"] == f"org/gemma@{model}"


def test_without_either_a_run_ends_before_its_first_stage_and_a_plan_does_not(
    start, uploaded, file, tmp_path, capsys, monkeypatch
):
    hub, _, _ = uploaded
    hub.stop()
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    assert cli.main(["validate", str(file)]) == 0
    assert cli.main(["plan", str(file), "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    silent = "no such folder here, not in the hub's cache, and the hub cannot be reached for revision main."
    assert f"\norg/gemma: {silent} Check the name, or run where there is a network: hf download org/gemma " in said
    assert (
        f"\ndatasets/org/rows: {silent}" in said and "hf download org/rows --repo-type dataset --revision main" in said
    )
    assert "2 of 2 stages would run" in said and not folder.exists()
    assert cli.main(["run", str(file), "--out", str(folder)]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: datasets/org/rows: {silent}")
    assert {path.name for path in folder.iterdir()} == {".lock"}


def test_finished_stages_need_no_hub(start, uploaded, file, tmp_path):
    """What could not be had would be read by no stage that runs."""
    hub, _, _ = uploaded
    start()
    hub.stop()
    assert start("stages.evaluation.data.size=5") == ["evaluation"]
    (tmp_path / "run/workflow.lock").unlink()
    with pytest.raises(DataError, match="the hub cannot be reached for revision main"):
        start("stages.evaluation.data.size=5")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=org/none"], "org/none: no such folder here, and no such public repository on the hub"),
        (
            ["model=org/gemma@v9"],
            "org/gemma@v9 means org/gemma on the hub: it has no revision 'v9'. Give a branch, tag or commit",
        ),
        (["stages.sft.data.path=org/none"], "datasets/org/none: no such folder here, and no such public repository"),
    ],
)
def test_refusals_of_the_hub_come_before_the_first_stage(start, uploaded, tmp_path, overrides, message):
    with pytest.raises(DataError, match=message) as error:
        start(*overrides)
    assert error.value.exit_code == 65 and not (tmp_path / "run/stages").exists()


@pytest.mark.parametrize("place", ["org/gemma", "datasets/org/rows"])
def test_a_licence_is_asked_for_before_the_first_stage(start, uploaded, tmp_path, place):
    uploaded[0].gated.add(place)
    with pytest.raises(DataError, match=rf"^{place}: accept its licence first, at https://huggingface\.co/{place};"):
        start()
    assert not (tmp_path / "run/stages").exists() and not (tmp_path / "run/workflow.lock").exists()


def test_an_adapter_on_the_hub_is_refused_as_one_on_the_disk_is(start, uploaded, tmp_path):
    """Its base is another repository, of which nothing would say the commit."""
    uploaded[0].commit("org/adapter", {"adapter_config.json": "{}"})
    with pytest.raises(ConfigError, match="'org/adapter' is an adapter; add it to its base model first"):
        start("model=org/adapter")


def test_what_keras_hub_fetches_is_called_not_pinned(start, uploaded, tmp_path, monkeypatch):
    monkeypatch.setattr("gemma_keras.checkpoints.keras_hub.check_preset", lambda preset: None)
    handle = "kaggle://keras/gemma2/keras/gemma2_2b_en/1"
    start(f"model={handle}")
    assert lock_of(tmp_path / "run")["hub"][handle] == {
        "kind": "model", "commit": None, "not_pinned": "KerasHub fetches it, and takes no commit",
    }  # fmt: skip
    found = about(tmp_path / "run")
    assert found["model"] == found["key_parts"]["config"]["model"] == handle
    assert "model" not in found["key_parts"]["data"]


def test_published_names_are_their_repositories(uploaded, file, tmp_path):
    hub, _, _ = uploaded
    commit = hub.commit("google/gemma-3-270m", {"config.json": "{}"})
    one = plan(file, tmp_path, "model=gemma3_270m")["sft"].hub["model"]
    assert (one.commit, one.name.at(one.commit)) == (commit, f"google/gemma-3-270m@{commit}")
    assert one.record()["repository"] == "google/gemma-3-270m"
    name = hub_names.HubName("model", "a/b@v1/c/d.gguf", "a/b", "v1", "c/d.gguf")
    assert name.at(COMMIT) == f"a/b@{COMMIT}/c/d.gguf"


def test_a_run_of_many_stages_looks_for_each_name_once(start, uploaded, file):
    hub, _, _ = uploaded
    again = "  again:\n    kind: instruction_tuning\n    data: {path: org/rows}\n"
    file.write_text(TEXT.replace("  evaluation:\n", f"{again}  evaluation:\n"))
    assert start() == ["sft", "again", "evaluation"]
    assert sorted(line for line in hub.asked if "agent" not in line) == [
        "GET /api/datasets/org/rows/revision/main", "GET /api/models/org/gemma/revision/main",
        "HEAD /datasets/org/rows/resolve/main/README.md", "HEAD /org/gemma/resolve/main/adapter_config.json",
    ]  # fmt: skip


def test_each_name_is_asked_once_and_a_silent_hub_once(uploaded, tmp_path, monkeypatch):
    hub, model, _ = uploaded
    commits = hub_commits.HubCommits(tmp_path / "workflow.lock")
    name = hub_names.HubName("model", "org/gemma", "org/gemma")
    assert commits.of(name).commit == commits.of(name).commit == model
    assert len([line for line in hub.asked if "org/gemma" in line]) == 1
    calls = []

    def silent(*arguments, **options):
        calls.append(options["timeout"])
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", silent)
    for other in ("a/b", "c/d"):
        assert commits.of(hub_names.HubName("model", other, other)).problem.startswith(f"{other}: no such folder")
    assert calls == [10.0]


def test_a_commit_in_the_workflow_stands_over_a_lock_that_was_written_into(start, uploaded, file, tmp_path):
    _, model, _ = uploaded
    start(f"model=org/gemma@{model}")
    text = (tmp_path / "run/workflow.lock").read_text()
    (tmp_path / "run/workflow.lock").write_text(text.replace(f'"commit": "{model}"', f'"commit": "{COMMIT}"'))
    assert plan(file, tmp_path / "run", f"model=org/gemma@{model}")["sft"].hub["model"].commit == model


@pytest.mark.parametrize("entry", [{"commit": COMMIT}, {"kind": "data"}, COMMIT, None])
def test_an_entry_of_another_name_or_form_does_not_stand(start, uploaded, file, tmp_path, entry):
    _, model, _ = uploaded
    start()
    lock = lock_of(tmp_path / "run")
    lock["hub"]["org/gemma"] = entry
    (tmp_path / "run/workflow.lock").write_text(json.dumps(lock))
    assert plan(file, tmp_path / "run")["sft"].parts["data"]["model"] == model


def test_a_lock_that_cannot_be_read_is_named(start, uploaded, file, tmp_path):
    start()
    (tmp_path / "run/workflow.lock").write_text("{")
    with pytest.raises(ConfigError, match=r"workflow\.lock: is no lock of a run, and would say which commits"):
        plan(file, tmp_path / "run")


def test_local_names_ask_no_hub_and_read_no_lock(workflow_file, tmp_path):
    (tmp_path / "workflow.lock").write_text("{")
    loaded = workflow.load(workflow_file)
    assert all(stage.hub == {} for stage in planning.plan(loaded.workflow, loaded.base_folder, tmp_path))


def test_the_stage_reads_the_rows_of_the_commit(start, uploaded, tmp_path, monkeypatch):
    """Through `datasets`; after the set has changed on the hub, and when the hub is gone."""
    datasets = pytest.importorskip("datasets")
    hub, _, _ = uploaded
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "tables")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    stand_in = stage_main.registry.stage_function("instruction_tuning")
    read = []

    def stage(config, context):
        if context.name == "sft":
            read.extend(one.completion for one in context.examples(config.data, "instruction"))
        return stand_in(config, context)

    monkeypatch.setattr(stage_main.registry, "stage_function", lambda kind: stage)
    start()
    hub.commit("datasets/org/rows", {"train.jsonl": ROWS % "second"})
    start("stages.sft.learning_rate=1e-5")
    start(out="other")
    assert read == ["first", "first", "second"]
    # Without the hub `datasets` would take the newest that it has, whatever was asked for.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"org/rows:1: cannot be loaded: .* not of commit [0-9a-f]{40}\."):
        start("stages.sft.learning_rate=1e-6")
    start("stages.sft.learning_rate=1e-6", out="other")
    assert read == ["first", "first", "second", "second"]


def test_a_revision_behind_the_name_of_a_data_set_is_as_one_beside_it(start, uploaded, file, tmp_path):
    hub, _, data = uploaded
    hub.refs["datasets/org/rows", "v1"] = data
    hub.commit("datasets/org/rows", {"train.jsonl": ROWS % "second"})
    behind, beside = "stages.sft.data.path=org/rows@v1", "stages.sft.data.revision=v1"
    assert cli.main(["validate", str(file), "--set", behind]) == 0
    start(behind)
    assert about(tmp_path / "run")["config"]["data"]["path"] == f"org/rows@{data}"
    assert plan(file, tmp_path / "run", beside)["sft"].reasons == []
    assert [*lock_of(tmp_path / "run")["hub"]] == ["datasets/org/rows@v1", "org/gemma"]


def test_a_folder_of_the_name_without_its_revision_is_not_taken_for_it(start, uploaded, tmp_path):
    hub, _, data = uploaded
    hub.refs["datasets/org/rows", "v1"] = data
    (tmp_path / "org/rows").mkdir(parents=True)
    start("stages.sft.data.path=org/rows@v1")
    path = about(tmp_path / "run")["config"]["data"]["path"]
    assert path == f"org/rows@{data}" and find_path(path, tmp_path) is None


@pytest.mark.parametrize("name", ["rows@v1", "org/rows@v1.jsonl", "gone/rows.jsonl", "gone/rows@v1/train.csv"])
def test_files_are_never_asked_for(uploaded, file, tmp_path, name):
    if "gone" not in name:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(ROWS % "local")
    assert "data.path" not in plan(file, tmp_path / "run", f"stages.sft.data.path={name}")["sft"].hub


def test_a_key_without_a_commit_is_that_of_no_finished_stage(uploaded, file, tmp_path):
    uploaded[0].stop()
    stage = plan(file, tmp_path)["sft"]
    assert stage.parts["data"] == {"data.path": keys.UNKNOWN, "model": keys.UNKNOWN} and stage.action == "run"
