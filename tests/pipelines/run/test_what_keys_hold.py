"""What a stage's key must hold, part by part, each changed alone: the stage that depends on it runs again, and the
reason names it; no other stage does but those that read it. And what it must not hold."""

import importlib.metadata
import json
import os
import shutil

import pytest

from pipelines.run import keys, planning
from pipelines.workflow import loading

pytestmark = [
    pytest.mark.no_backend,
    pytest.mark.fault("keys: what must matter and what must not"),
    pytest.mark.usefixtures("all_backends"),
]
WORKFLOW = """\
name: keys
seed: 3
backend: jax
model: {config: {num_layers: 2}}
stages:
  base:
    kind: pretraining
    data: {path: texts.jsonl, text: text}
    learning_rate: 1e-4
  tuned:
    kind: instruction_tuning
    from: start
    data: {path: rows.csv}
  best:
    kind: best_of_n
    from: base
    reward: polite
    data: {task: small_world, split: rl, size: 9}
"""
STAGES = ("base", "tuned", "best")
EVERY, OF_BASE = dict.fromkeys(STAGES), {"base": None, "best": "input changed: base"}


class Workspace:
    """A workflow with data, a model's folder and a reward of one's own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.write("w.yaml", WORKFLOW)
        self.write("texts.jsonl", '{"text": "one"}\n')
        self.write("rows.csv", "prompt,completion\na,b\n")
        self.write("mine.py", "def polite(completions): return [1]\n\n\ndef other(completions): return [2]\n")
        (folder / "start").mkdir()
        self.write("start/config.json", '{"model_type": "gemma3_text"}')
        self.write("start/model.safetensors", "weights")

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def replace(self, name, old, new):
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def plan(self, *overrides, out="run"):
        """Key and its parts, by stage; as of a process that has just begun."""
        loaded = loading.load(self.folder / "w.yaml", overrides, plugins=[self.folder / "mine.py"])
        planned = planning.plan(loaded.workflow, loaded.base_folder, self.folder / out, loaded.user_functions)
        return {stage.name: (stage.key, stage.parts) for stage in planned}


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in keys.ARITHMETIC_SWITCHES:
        monkeypatch.delenv(name, raising=False)
    return Workspace(tmp_path / "space")


def reasons(before, after):
    """Why each stage runs again; only of those that do."""
    found = {name: keys.changes(before[name][1], after[name][1]) for name in before}
    assert {name for name in found if found[name]} == {name for name in before if before[name][0] != after[name][0]}
    return {name: changes for name, changes in found.items() if changes}


def check(before, after, expected, reason):
    """`expected`: stages that run again; None for the given reason."""
    found = reasons(before, after)
    assert found.keys() == expected.keys()
    for name, own in expected.items():
        assert (own or reason) in found[name], found[name]


OVERRIDES = {
    "seed=4": (EVERY, "seed changed: 3 -> 4"),
    "backend=torch": (EVERY, "backend changed: jax -> torch"),
    "stages.base.learning_rate=1e-5": (OF_BASE, "config changed: learning_rate 0.0001 -> 1e-05"),
    "stages.base.data.text=other": (OF_BASE, "config changed: data.text text -> other"),
    "stages.best.samples_per_prompt=7": ({"best": None}, "config changed: samples_per_prompt 8 -> 7"),
    "stages.best.from=start": ({"best": None}, "input changed: base"),
    "stages.best.data.size=8": ({"best": None}, "config changed: data.size 9 -> 8"),
    "stages.best.reward=other": ({"best": None}, "function changed: other"),
    "model.config.num_layers=3": (OF_BASE, "config changed: model.config.num_layers 2 -> 3"),
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_setting_matters(space, override):
    before = space.plan()
    check(before, space.plan(override), *OVERRIDES[override])


def test_the_kind_matters(space):
    before = space.plan()
    text = WORKFLOW.replace("kind: instruction_tuning", "kind: preference_optimization")
    space.write("w.yaml", text)
    check(before, space.plan(), {"tuned": None}, "kind changed: instruction_tuning -> preference_optimization")


CONTENTS = {
    "texts.jsonl": ("one", "two", OF_BASE, "data changed: data.path"),
    "rows.csv": ("a,b", "a,c", {"tuned": None}, "data changed: data.path"),
    "start/model.safetensors": ("weights", "others!", {"tuned": None}, "data changed: from"),
    "start/config.json": ("gemma3", "gemma2", {"tuned": None}, "data changed: from"),
    "mine.py": ("[1]", "[3]", {"best": None}, "function changed: polite"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_matter(space, name):
    old, new, expected, reason = CONTENTS[name]
    before = space.plan()
    space.replace(name, old, new)
    check(before, space.plan(), expected, reason)


def test_a_file_more_in_a_models_folder_matters(space):
    before = space.plan()
    space.write("start/tokenizer.json", "{}")
    check(before, space.plan(), {"tuned": None}, "data changed: from")


def test_code_matters(space, monkeypatch):
    before = space.plan()
    monkeypatch.setattr(keys, "code_digest", lambda: "other")
    check(before, space.plan(), EVERY, "code changed")


@pytest.mark.parametrize(
    "package", ["keras", "numpy", "ml_dtypes", "sentencepiece", "jax", "jaxlib", "datasets", "torch"]
)
def test_a_version_matters_to_whoever_computes_with_it(space, monkeypatch, package):
    """Tables are read with `datasets`; another backend is nobody's."""
    before, real = space.plan(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == package else real(name))
    expected = {"datasets": {"tuned": None}, "torch": {}}.get(package, EVERY)
    old = before["tuned"][1]["versions"].get(package)
    check(before, space.plan(), expected, f"versions changed: {package} {old} -> 0.0")


def test_pythons_version_matters(space, monkeypatch):
    before = space.plan()
    version = ".".join(map(str, keys.sys.version_info[:2]))
    other = type("Version", (), {"major": 3, "minor": 99})
    monkeypatch.setattr(keys, "sys", type("System", (), {"version_info": other}))
    check(before, space.plan(), EVERY, f"versions changed: python {version} -> 3.99")


@pytest.mark.parametrize("name", keys.ARITHMETIC_SWITCHES)
def test_a_switch_of_arithmetic_matters(space, monkeypatch, name):
    before = space.plan()
    monkeypatch.setenv(name, "1")
    check(before, space.plan(), EVERY, f"machine changed: {name} nothing -> 1")


@pytest.mark.parametrize(("part", "value"), [("accelerator", "tpu"), ("floatx", "float64")])
def test_the_machine_matters(space, tmp_path, monkeypatch, part, value):
    before = space.plan()
    if part == "floatx":
        (tmp_path / "keras").mkdir()
        (tmp_path / "keras/keras.json").write_text(json.dumps({"floatx": value}))
        old = "float32"
    else:
        real, old = keys.Path, before["base"][1]["machine"]["accelerator"]
        (tmp_path / "device").touch()
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(
            keys, "Path", lambda *parts: real(tmp_path / "device") if parts == ("/dev/accel0",) else real(*parts)
        )
    check(before, space.plan(), EVERY, f"machine changed: {part} {old} -> {value}")


def reorder(space, monkeypatch):
    text = WORKFLOW.replace("name: keys\nseed: 3\n", "").replace("backend: jax\n", "")
    text = text.replace("    from: base\n    reward: polite\n", "    reward: polite\n    from: base\n")
    space.write("w.yaml", text + "backend: jax\nseed: 3\nname: keys\n")


def later(space, monkeypatch):
    for path in space.folder.rglob("*"):
        os.utime(path, (2e9, 2e9))


def copied(space, monkeypatch):
    shutil.copytree(space.folder, space.folder.with_name("elsewhere"))
    space.folder = space.folder.with_name("elsewhere")


def renamed(space, monkeypatch):
    (space.folder / "texts.jsonl").rename(space.folder / "other.jsonl")
    (space.folder / "start").rename(space.folder / "begun")
    space.write("w.yaml", WORKFLOW.replace("texts.jsonl", "other.jsonl").replace("from: start", "from: begun"))


def environment(**variables):
    return lambda space, monkeypatch: [monkeypatch.setenv(*item) for item in variables.items()]


def text(old, new, name="w.yaml"):
    return lambda space, monkeypatch: space.replace(name, old, new)


WITHOUT_MEANING = {
    "a comment": text("seed: 3", "# the seed\nseed: 3  # of all"),
    "blank lines": text("stages:\n", "\n\nstages:\n\n"),
    "the order of keys": reorder,
    "another way to write a number": text("1e-4", "0.0001"),
    "quotes": text("kind: pretraining", "kind: 'pretraining'"),
    "braces": text("data: {path: rows.csv}", "data:\n      path: rows.csv"),
    "a default that is written": text("from: start", "from: start\n    micro_batch_size: null"),
    "the run's name": text("name: keys", "name: other"),
    "when states are taken": text("seed: 3", "seed: 3\nstate: {every_seconds: 7, keep: 1}"),
    "a gate": text("from: base\n", "from: base\n    require: {base.loss: '<= 9'}\n"),
    "the time of files": later,
    "the place of all": copied,
    "the names of data and models": renamed,
    "threads": environment(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1", MKL_NUM_THREADS="1"),
    "the seed of hashes": environment(PYTHONHASHSEED="7"),
    "time zone and language": environment(TZ="Asia/Tokyo", LANG="de_DE.UTF-8", LC_ALL="C"),
    "where caches lie": environment(GEMMA_KERAS_CACHE="/nowhere", JAX_COMPILATION_CACHE_DIR="/nowhere"),
    "a file that no stage names": lambda space, monkeypatch: space.write("notes.txt", "mine"),
}


@pytest.mark.parametrize("what", WITHOUT_MEANING)
def test_what_does_not_matter(space, monkeypatch, what):
    before = space.plan()
    WITHOUT_MEANING[what](space, monkeypatch)
    assert reasons(before, space.plan()) == {}


def test_the_run_folder_does_not_matter(space):
    assert reasons(space.plan(), space.plan(out="deep/elsewhere")) == {}


def test_a_stage_more_does_not_matter_to_the_others(space):
    before = space.plan()
    more = "  more:\n    kind: instruction_tuning\n    from: tuned\n    data: best\n"
    space.write("w.yaml", WORKFLOW + more)
    after = space.plan()
    assert after.pop("more") and reasons(before, after) == {}
