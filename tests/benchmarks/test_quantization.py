"""The measurement of quantization: nothing is lost without it, and four bits lose more than eight."""

import json

import keras
import numpy as np
import pytest
from stage_fixture import sentences

from benchmarks import quantization
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel, GemmaTokenizer

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the script knows no backend; once is enough"
)

SIZES = {
    "num_layers": 2, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_dim": 32,
    "intermediate_dim": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def backbone_and_tokenizer():
    tokenizer = GemmaTokenizer.train(sentences(50), 300, "gemma")
    return GemmaBackbone(GemmaConfig(vocabulary_size=300, **SIZES), seed=4), tokenizer


def cells(printed):
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines[1:]}


def test_a_policy_on_texts(backbone_and_tokenizer, tmp_path, capsys):
    GemmaCausalLM(*backbone_and_tokenizer).save_to_preset(tmp_path / "model")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(6)))
    assert quantization.main(["policy", str(tmp_path / "model"), str(tmp_path / "texts.jsonl"), "--rows", "4"]) == 0
    found = cells(capsys.readouterr().out)
    assert list(found) == ["float32", "int8", "int4"]
    assert found["float32"][2:] == ["0.00000", "100.00%"]
    assert 0 < float(found["int8"][2]) < float(found["int4"][2])


def test_a_reward_model_on_pairs(backbone_and_tokenizer, tmp_path, capsys):
    GemmaRewardModel(*backbone_and_tokenizer, seed=1).save_to_preset(tmp_path / "model")
    random = np.random.default_rng(0)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [{name: random.integers(5, 300, 4).tolist() for name in names} for _ in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert quantization.main(["reward", str(tmp_path / "model"), str(tmp_path / "pairs.jsonl")]) == 0
    found = cells(capsys.readouterr().out)
    assert found["float32"][2:] == ["100.0%", "0.000"]
    assert 0 < float(found["int8"][3]) < float(found["int4"][3])
