"""A stage that starts from a model on the hub: it reads the commit that the run's lock names, whatever `main` is by
then."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from stage_fixture import SCRATCH, tiny_tuned_model, write_jsonl

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig
from gemma_keras.backends import to_host
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines import cli
from pipelines.run import runner
from pipelines.workflow import loading

pytestmark = pytest.mark.once


@pytest.fixture
def start(tmp_path, backend):
    """A function that tunes `org/gemma` for one update; returns the embedding that came out, as bytes."""
    rows = [{"prompt": f"red {i}", "completion": "cat"} for i in range(8)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "w.yaml").write_text(
        f"name: hub\nbackend: {backend}\nmodel: org/gemma\nstages:\n  sft:\n    kind: instruction_tuning\n"
        "    data: {path: rows.jsonl}\n    max_steps: 1\n    batch_size: 4\n    max_length: 32\n"
    )

    def start(out="run"):
        loaded = loading.load(tmp_path / "w.yaml")
        runner.run(loaded, tmp_path / out, in_process=True, quiet=True, say=lambda line: None)
        arrays = load_file(tmp_path / out / "stages/sft/model/model.safetensors")
        return arrays["model.embed_tokens.weight"].tobytes()

    return start


def upload(hub, folder, seed):
    model = tiny_tuned_model(folder, seed) / "model"
    return hub.commit("org/gemma", {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()})


def test_a_run_that_is_repeated_reads_what_it_read(start, local_hub, tmp_path):
    old = upload(local_hub, tmp_path / "old", seed=3)
    first = start()
    new = upload(local_hub, tmp_path / "new", seed=4)
    assert start("other") != first
    assert (local_hub.cache / "models--org--gemma/refs/main").read_text() == new
    # The finished stage is gone, so it reads its model again; the hub and its cache name the new commit now.
    shutil.rmtree(tmp_path / "run/stages/sft")
    assert start() == first
    assert json.loads((tmp_path / "run/stages/sft/stage.json").read_text())["model"] == f"org/gemma@{old}"
    local_hub.stop()
    shutil.rmtree(tmp_path / "run/stages/sft")
    assert start() == first


def test_a_model_of_the_cache_is_read_without_a_network(start, local_hub, tmp_path, monkeypatch):
    """As `huggingface_hub` lays it out; then `refs/main` leads elsewhere."""
    for commit, seed in (("a" * 40, 3), ("b" * 40, 4)):
        folder = tiny_tuned_model(tmp_path / commit, seed) / "model"
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        local_hub.put_into_cache("org/gemma", commit, files, refs=["main"] if seed == 3 else [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    first = start()
    (local_hub.cache / "models--org--gemma/refs/main").write_text("b" * 40)
    shutil.rmtree(tmp_path / "run/stages/sft")
    assert start() == first != start("other")
    assert GemmaTokenizer.from_preset(f"org/gemma@{'b' * 40}").vocabulary_size() == 300


@pytest.mark.needs("lm_eval")
def test_a_model_that_is_only_measured_is_read_at_its_commit_too(local_hub, tmp_path, backend):
    """Two revisions of one repository beside each other; `main` moves between two runs of one folder."""
    old = upload(local_hub, tmp_path / "old", seed=3)
    new = upload(local_hub, tmp_path / "new", seed=4)
    rows = [{"q": f"red {n}", "c": ["cat", "dog sun", "moon"], "a": n % 3} for n in range(12)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "w.yaml").write_text(
        f"name: hub\nbackend: {backend}\nstages:\n  b:\n    kind: benchmark\n    models: [org/gemma, org/gemma@{old}]\n"
        "    suite: [{name: m, path: rows.jsonl, prompt: q, choices: c, answer: a}]\n"
    )

    def measure():
        loaded = loading.load(tmp_path / "w.yaml")
        runner.run(loaded, tmp_path / "run", in_process=True, quiet=True, say=lambda line: None)
        return json.loads((tmp_path / "run/stages/b/final.json").read_text())["benchmarks"]

    first = measure()
    assert [one["model"] for one in first] == ["org/gemma", "org/gemma"] and first[0]["turns"] is False
    lock = json.loads((tmp_path / "run/workflow.lock").read_text())["hub"]
    assert {entry["commit"] for entry in lock.values()} == {old, new} and len(lock) == 2
    upload(local_hub, tmp_path / "third", seed=5)
    shutil.rmtree(tmp_path / "run/stages/b")
    assert measure() == first


@pytest.mark.slow
@pytest.mark.needs("keras_hub")
def test_a_preset_of_keras_hub_is_read_at_its_commit(local_hub, tmp_path, capsys):
    """KerasHub itself would open `main`."""
    commits, embeddings = [], []
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, "gemma")
    sizes = {**SCRATCH["config"], "family": "gemma", "use_post_norms": False, "use_query_key_norm": False}
    for seed in (3, 4):
        source, preset = tmp_path / f"{seed}", tmp_path / f"preset-{seed}"
        backbone = GemmaBackbone(GemmaConfig(vocabulary_size=300, **sizes), seed=seed)
        GemmaCausalLM(backbone, tokenizer).save_to_preset(source)
        assert cli.main(["convert", str(source), str(preset), "--keras-hub", "--dtype", "float32"]) == 0
        files = {path.relative_to(preset).as_posix(): path for path in preset.rglob("*") if path.is_file()}
        commits.append(local_hub.commit("org/preset", {name: path.read_bytes() for name, path in files.items()}))
        embeddings.append(load_file(source / "model.safetensors")["model.embed_tokens.weight"])
    for commit, embedding in zip(commits, embeddings, strict=True):
        opened = GemmaCausalLM.from_preset(f"org/preset@{commit}")
        found = to_host(opened.backbone.named_variables()["embedding"].value)
        np.testing.assert_array_equal(found, embedding)
