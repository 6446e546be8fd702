"""Each library does the work of each kind of case, at a tiny size, and times as many steps as the case has."""

import dataclasses
import importlib
import json
import os

import keras
import pytest

from benchmarks import real_model
from benchmarks.case import engine, tiny
from benchmarks.cases import case_named
from benchmarks.stopwatch import Stopwatch
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig

BACKEND = keras.backend.backend()
IS_TORCH = BACKEND == "torch"
SAMPLES = 2


class TwoSamples(Stopwatch):
    """Asked for a few samples, and then for no more."""

    asked = 0

    def wait(self):
        self.asked += 1
        self.begin()
        self._started, self._laps, self._first = self._since, [], None
        return self.asked <= SAMPLES


def served(name, library, **changes):
    """What a worker of the case would answer."""
    read_end, write_end = os.pipe()
    case = dataclasses.replace(tiny(case_named(name)), **changes).of(library)
    stopwatch = TwoSamples(write_end)
    try:
        importlib.import_module(f"benchmarks.engines.{engine(library)}_engine").serve(case, stopwatch)
    except SystemExit:  # how a callback ends a trainer's loop
        pass
    stopwatch._answers.close()
    with os.fdopen(read_end) as answers:
        ready, *samples = [json.loads(line) for line in answers]
    assert ready["event"] == "ready" and len(samples) == SAMPLES
    for sample in samples:
        assert len(sample["seconds"]) == case.steps + bool(case.odd_rows) and min(sample["seconds"]) > 0
        assert sample["until_first"] >= sample["seconds"][0]
    return ready["parameters"]


@pytest.mark.parametrize(
    "name, library",
    [
        ("train_lora_odd", "ours@graph" if BACKEND == "tensorflow" else "ours"),
        ("update", "ours"),
        *[(name, "ours") for name in ("train_mixed_bfloat16", "generate_top_k", "reward_mixed_bfloat16") if IS_TORCH],
        *([("reinforce", "ours@bfloat16_rollouts")] if IS_TORCH else []),
    ],
)
def test_ours(name, library):
    """Elsewhere fewer kinds: their programs take long to compile."""
    assert served(name, library) > 1000


@pytest.mark.skipif(not IS_TORCH, reason="its programs take half a minute to compile")
@pytest.mark.parametrize("name", ["train_lora_odd", "train_mixed_bfloat16", "generate_top_p"])
def test_keras_hub(name):
    pytest.importorskip("keras_hub")
    # Its queries' adapters have a first matrix a head: three more of (32, 16) in each of two layers; and a second
    # matrix that the heads share, (16, 8) in place of (16, 32).
    more = 2 * (3 * 32 * 16 - 16 * 24) if name == "train_lora_odd" else 0
    assert served(name, "keras_hub") == served(name, "ours") + more


@pytest.mark.skipif(not IS_TORCH, reason="runs on PyTorch")
@pytest.mark.parametrize(
    "name", ["train_lora_odd", "train_mixed_bfloat16", "generate_top_k", "generate_16_bfloat16", "update"]
)
def test_transformers(name):
    pytest.importorskip("transformers")
    assert served(name, "transformers") == served(name, "ours")


@pytest.mark.skipif(not IS_TORCH, reason="runs on PyTorch")
@pytest.mark.parametrize("name", ["reward_mixed_bfloat16", "reinforce_mixed_bfloat16"])
def test_trl(name):
    pytest.importorskip("trl")
    assert served(name, "trl") == served(name, "ours")


@pytest.mark.skipif(not IS_TORCH, reason="the case runs on PyTorch")
@pytest.mark.parametrize("name", ["gemma_3_270m_decode_16", "gemma_3_270m_train"])
def test_published_weights(name, tmp_path, monkeypatch):
    """Ours and transformers open one folder, here of a small model."""
    pytest.importorskip("transformers")
    config = GemmaConfig(
        vocabulary_size=512, num_layers=2, num_query_heads=4, num_key_value_heads=1, head_dim=8, hidden_dim=32,
        intermediate_dim=64,
    )  # fmt: skip
    GemmaCausalLM(GemmaBackbone(config, seed=3)).save_to_preset(tmp_path / "model", dtype="bfloat16")
    monkeypatch.setattr(real_model, "folder", lambda: tmp_path / "model")
    counts = {library: served(name, library, real_model=True) for library in ("ours", "transformers")}
    assert counts["ours"] == counts["transformers"] > 1000
