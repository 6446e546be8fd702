"""Mistakes that only show once a stage runs, through the real command in real processes: one line, the exit code,
nothing left behind.

What a workflow's author can be told before anything runs is tested in tests/pipelines/test_cli.py and test_workflow.py,
damaged rows in test_data_rows.py, damaged weights in tests/security.
"""

import os
import pickle
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("bad rows and data")]

SIZES = {
    "num_layers": 1,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "num_query_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
WORKFLOW = """\
name: bad
backend: jax
model: MODEL
stages:
  tuned:
    kind: instruction_tuning
    data: {path: pairs.jsonl}
    max_length: 32
    max_steps: 1
"""
SCRATCH = """\
name: bad
backend: jax
model: {config: {num_layers: 1, hidden_dim: 8, intermediate_dim: 16, num_query_heads: 1, num_key_value_heads: 1,
    head_dim: 8}}
stages:
  base:
    kind: pretraining
    data: {path: texts.jsonl, text: text}
    max_length: 32
    max_steps: 1
"""
# Makes a package look absent, in every process that Python starts.
BLOCKER = """\
import importlib.abc, importlib.machinery, os, sys
BLOCKED = os.environ["TEST_BLOCKED"].split(",")
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in BLOCKED else find(name, package)
"""


class Pickled:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model's folder, made in another process: this one loads no backend."""
    folder = tmp_path_factory.mktemp("model") / "model"
    code = (
        "from gemma_keras import *\ntokenizer = GemmaTokenizer.train(['user model question answer one two'] * 9, "
        f"300)\nGemmaCausalLM(GemmaBackbone(GemmaConfig(vocabulary_size=300, **{SIZES!r})), "
        f"tokenizer).save_to_preset({str(folder)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "KERAS_BACKEND": "jax"}, timeout=120)
    return folder


@pytest.fixture
def place(tmp_path, model):
    """A folder with a workflow, its data and a copy of the model that a test may damage."""
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "w.yaml").write_text(WORKFLOW.replace("MODEL", "model"))
    (tmp_path / "scratch.yaml").write_text(SCRATCH)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "question", "completion": "answer"}\n' * 4)
    (tmp_path / "texts.jsonl").write_text('{"text": "question one answer two"}\n' * 4)
    return tmp_path


def command(folder, *arguments, blocked="", **variables):
    """The finished process of `gemma-keras ARGUMENTS`, some packages looking absent."""
    repository = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": repository, **variables}
    if blocked:
        (folder / "blocker").mkdir(exist_ok=True)
        (folder / "blocker" / "sitecustomize.py").write_text("import importlib.util\n" + BLOCKER)
        environment |= {"PYTHONPATH": f"{folder / 'blocker'}{os.pathsep}{repository}", "TEST_BLOCKED": blocked}
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def run(folder, *options, workflow="w.yaml", **variables):
    return command(folder, "run", workflow, "--out", "out", "--quiet", *options, **variables)


def assert_refused(done, code, *parts):
    """One line that says what is wrong and what to do, and the exit code; no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def assert_nothing_left(folder):
    """No stage, finished or not, no summary of a run that was none, no temporary file."""
    out = folder / "out"
    assert not out.exists() or not list((out / "stages").iterdir())
    assert not (out / "summary.json").exists() and not (out / "report.html").exists()
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".partial"))]


def test_the_same_place_without_mistakes_runs(place):
    done = run(place)
    assert done.returncode == 0, done.stderr
    assert (place / "out/stages/tuned/model/model.safetensors").is_file()


def test_truncated_safetensors(place):
    weights = place / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(run(place), 65, "model.safetensors", "truncated")
    assert_nothing_left(place)


def test_pickled_weights_are_named_and_never_opened(place):
    (place / "model" / "model.safetensors").unlink()
    mark = place / "executed"
    (place / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled(mark)))
    assert_refused(run(place), 65, "pytorch_model.bin", "safetensors")
    assert not mark.exists()
    assert_nothing_left(place)


@pytest.mark.parametrize("content", [b"", b"not a tokenizer at all"])
def test_damaged_tokenizer(place, content):
    (place / "model" / "tokenizer.model").write_bytes(content)
    assert_refused(run(place), 65, "tokenizer.model")
    assert_nothing_left(place)


def test_weights_missing(place):
    (place / "model" / "model.safetensors").unlink()
    assert_refused(run(place), 65, "model.safetensors")
    assert_nothing_left(place)


def test_a_tokenizer_larger_than_its_texts_allow(place):
    assert_refused(
        run(place, "--set", "model.tokenizer.vocabulary_size=5000", workflow="scratch.yaml"), 2, "vocabulary_size=5000"
    )
    assert_nothing_left(place)


def test_fewer_rows_of_the_embedding_than_pieces(place):
    done = run(place, "--set", "model.config.vocabulary_size=310", workflow="scratch.yaml")
    assert_refused(done, 2, "310", "512", "leave it out, or raise it")
    assert not (place / "out").exists()


@pytest.mark.parametrize("source", ["yaml", "environment", "option"])
def test_unknown_backend(place, source):
    options, variables = [], {}
    text = WORKFLOW.replace("MODEL", "model")
    if source == "yaml":
        (place / "w.yaml").write_text(text.replace("backend: jax", "backend: jaxx"))
    elif source == "environment":
        (place / "w.yaml").write_text(text.replace("backend: jax\n", ""))
        variables = {"KERAS_BACKEND": "jaxx"}
    else:
        options = ["--backend", "jaxx"]
    assert_refused(run(place, *options, **variables), 2, "jaxx", "jax", "tensorflow", "torch")
    assert not (place / "out").exists()


@pytest.mark.parametrize("in_yaml", [True, False])
def test_backend_that_is_not_installed(place, in_yaml):
    text = WORKFLOW.replace("MODEL", "model")
    (place / "w.yaml").write_text(text.replace("backend: jax\n", "backend: torch\n" if in_yaml else ""))
    done = run(place, blocked="torch", **({} if in_yaml else {"KERAS_BACKEND": "torch"}))
    assert_refused(done, 2, "'torch'", "pip install 'torch>=", "choose one that is installed: ", " (--backend ")
    assert not (place / "out").exists()


def test_a_published_name_without_a_network_names_what_would_be_fetched(place):
    (place / "w.yaml").write_text(WORKFLOW.replace("MODEL", "gemma3_270m"))
    said = "google/gemma-3-270m on the hub", "revision main", "hf download google/gemma-3-270m --revision main"
    assert_refused(run(place), 65, *said)
    assert_refused(command(place, "generate", "gemma3_270m", "--quiet", "--prompt", "x", "--backend", "jax"), 65, *said)
    assert_refused(
        command(place, "convert", "--quiet", "gemma3_270m@v1", "converted"), 65, "google/gemma-3-270m on the hub", "v1"
    )


def test_an_interrupted_conversion_leaves_nothing(place):
    (place / "model" / "tokenizer.model").write_bytes(b"junk")
    before = sorted(path.name for path in place.iterdir())
    assert_refused(command(place, "convert", "--quiet", "model", "converted"), 65, "tokenizer.model")
    weights = place / "model" / "model.safetensors"
    (place / "model" / "tokenizer.model").unlink()
    (place / "model" / "tokenizer.json").unlink()
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(command(place, "convert", "--quiet", "model", "converted"), 65, "model.safetensors")
    assert sorted(path.name for path in place.iterdir()) == before
