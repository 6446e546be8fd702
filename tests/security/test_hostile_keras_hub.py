"""Every key of a KerasHub preset's JSON with each of many wrong values, opened by KerasHub itself where nothing was
found before it is asked."""

import json
import shutil

import pytest
from hostile_json import damaged, faults, some

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.formats import FORMATS
from gemma_keras.checkpoints.resolve import open_model

pytestmark = [
    pytest.mark.once, pytest.mark.needs("keras_hub"), pytest.mark.fault("hostile JSON: every key, 34 wrong values")
]  # fmt: skip
READ = ("config.json", "tokenizer.json", "metadata.json")
BESIDE = ("task.json", "preprocessor.json")  # which no backbone and no tokenizer is made of
PARTS = [(file, "few") for file in (*READ, *BESIDE)]
PARTS += [pytest.param(file, "others", marks=pytest.mark.slow) for file in READ]


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """As KerasHub writes it."""
    root = tmp_path_factory.mktemp("presets")
    tokenizer = GemmaTokenizer.train(["user model one two three"] * 9, 300, "gemma")
    config = GemmaConfig(
        vocabulary_size=300, num_layers=1, num_query_heads=1, num_key_value_heads=1, head_dim=8, hidden_dim=8,
        intermediate_dim=8,
    )  # fmt: skip
    GemmaCausalLM(GemmaBackbone(config, seed=1), tokenizer).save_to_preset(root / "folder")
    (root / "preset").mkdir()
    FORMATS["keras_hub"].write(root / "preset", open_model(root / "folder"))
    return root / "preset"


@pytest.mark.parametrize(("file", "part"), PARTS)
def test_a_wrong_value_anywhere(preset, tmp_path, file, part, record_property):
    shutil.copytree(preset, tmp_path / "preset")
    text = (preset / file).read_text()

    def read(new):
        (tmp_path / "preset" / file).write_text(new)
        model = open_model(tmp_path / "preset")
        assert {name for name, _ in model.weights} >= {"embedding", "final_norm"}

    read(text)
    assert json.loads(text)
    cases = some(damaged(text, 2), part)
    count, found = faults(cases, read, CheckpointError, "preset")
    record_property("cases", count)
    assert not found, f"{len(found)} of {count}:\n" + "\n".join(found)
