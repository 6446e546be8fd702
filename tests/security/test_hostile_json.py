"""Every key of a model's JSON files with each of many wrong values: it is read, or refused by one line that names the
file, at once and in little memory."""

import json
import shutil

import h5py
import numpy as np
import pytest
from hostile_json import WRONG, damaged, faults, some
from measured_command import faults_of, run_command
from preset_fixture import PARAMETERS, backbone

from gemma_keras.checkpoints import hugging_face_writer, names, peft, resolve, safetensors_file
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.keras_hub_preset import check_folder
from gemma_keras.config import GemmaConfig
from gemma_keras.lora_options import LoraOptions
from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile JSON: every key, 34 wrong values")]

SIZES = {
    "vocabulary_size": 300, "num_layers": 2, "num_query_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
    "hidden_dim": 8, "intermediate_dim": 8,
}  # fmt: skip
WINDOW = {"query_scale": 8**-0.5, "use_post_norms": True, "sliding_window": 4, "local_layers": (True, False)}
CONFIGS = {
    "gemma": GemmaConfig(**SIZES),
    "gemma2": GemmaConfig(**SIZES, **WINDOW, family="gemma2", attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0),
    "gemma3": GemmaConfig(
        **SIZES, **WINDOW, family="gemma3", use_query_key_norm=True, local_rope_theta=1e4, rope_scale=8.0
    ),
}
REWARD = {"reward_mean": 0.0, "reward_std": 1.0}
INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"
# Folder and file → the most entries of a list or vocabulary that are damaged.
FILES = {
    "gemma/config.json": 8, "gemma2/config.json": 8, "gemma3/config.json": 8, "multimodal/config.json": 8,
    "reward/config.json": 8, "gemma3/tokenizer.json": 3, "json_alone/tokenizer.json": 3,
    "gemma3/tokenizer_config.json": 8, "gemma3/generation_config.json": 8, f"sharded/{INDEX}": 8,
    "adapter/adapter_config.json": 8, "preset/config.json": 8, "preset/tokenizer.json": 8,
}  # fmt: skip
CONVERTED = [file for file in FILES if not file.startswith("preset")]
KERAS_TOKENIZER = {
    "module": "keras_hub.src.models.gemma.gemma_tokenizer",
    "class_name": "GemmaTokenizer",
    "config": {
        "name": "tokenizer", "trainable": True, "proto": None, "sequence_length": None, "add_bos": False,
        "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "int32"}, "registered_name": None},
    },
    "registered_name": "keras_hub>GemmaTokenizer",
}  # fmt: skip


def write_model(folder, config, tokenizer, reward=None):
    folder.mkdir()
    hugging_face_writer.write_config(folder, config, "float32", reward, (1, 107))
    shapes = names.expected_shapes(config, with_score=reward is not None)
    hugging_face_writer.write_weights(folder, [(name, np.ones(shape, np.float32)) for name, shape in shapes.items()])
    tokenizer.save(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of each kind, sound ones, below one."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = GemmaTokenizer.train(["user model one two three"] * 9, 300, "gemma3")
    for name, config in CONFIGS.items():
        write_model(root / name, config, tokenizer)
    write_model(root / "reward", CONFIGS["gemma3"], tokenizer, REWARD)
    for name in ("multimodal", "json_alone", "sharded"):
        shutil.copytree(root / "gemma3", root / name)
    text_config = json.loads((root / "gemma3/config.json").read_text())
    table = {"model_type": "gemma3", "text_config": text_config, "vision_config": {"hidden_size": 4}}
    (root / "multimodal/config.json").write_text(json.dumps(table))
    (root / "json_alone/tokenizer.model").unlink()
    (root / "sharded/model.safetensors").rename(root / "sharded" / SHARD)
    tensors = dict.fromkeys(safetensors_file.read_header(root / "sharded" / SHARD), SHARD)
    (root / "sharded" / INDEX).write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": tensors}))
    options = LoraOptions(rank=2, targets=("q_proj",))
    pairs = [(f"layers.{layer}.q_proj", np.ones((8, 2)), np.ones((2, 8))) for layer in range(2)]
    peft.write_adapter(root / "adapter", CONFIGS["gemma3"], options, pairs, base=str(root / "gemma3"))
    (root / "preset").mkdir()
    (root / "preset/config.json").write_text(
        json.dumps(backbone(layer_norm_epsilon=1e-6, sliding_window_size=8, final_logit_soft_cap=30.0, dropout=0))
    )
    (root / "preset/tokenizer.json").write_text(json.dumps(KERAS_TOKENIZER))
    with h5py.File(root / "preset/model.weights.h5", "w") as file:
        file["layers/reversible_embedding/vars/0"] = np.ones(PARAMETERS, np.float32)
    return root


@pytest.fixture
def damage(models, tmp_path, request):
    """A copy of a folder, its file's text, and what writes another text there and reads all of the folder."""

    def prepare(name):
        folder, file = name.split("/")
        shutil.copytree(models / folder, tmp_path / "model")

        def read(text):
            (tmp_path / "model" / file).write_text(text)
            check_folder(tmp_path / "model") if folder == "preset" else use(tmp_path / "model", tmp_path / "saved")

        return (models / name).read_text(), read

    return prepare


def use(folder, place):
    """All that is read of a model, and its tokenizer written again: what is taken has to be good for it."""
    model = resolve.open_model(folder)
    assert all(np.isfinite(array).all() for _, array in model.weights)
    assert model.tokenizer.decode(model.tokenizer.encode("one two")) == "one two"
    model.tokenizer.save(place)


def test_the_values():
    assert len(WRONG) == 34


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", ["few", pytest.param("others", marks=pytest.mark.slow)])
def test_a_wrong_value_anywhere(damage, name, part, record_property):
    text, read = damage(name)
    read(text)
    cases = some(damaged(text, FILES[name]), part)
    count, found = faults(cases, read, CheckpointError, name.split("/")[1])
    record_property("cases", count)
    assert not found, f"{len(found)} of {count}:\n" + "\n".join(found)


def test_an_index_is_named_also_where_a_shard_is_wrong(damage):
    text, read = damage(f"sharded/{INDEX}")
    with pytest.raises(CheckpointError, match="is named by model.safetensors.index.json and is not there"):
        read(text.replace(SHARD, "other.safetensors"))


@pytest.mark.parametrize("part", ["few", pytest.param("others", marks=pytest.mark.slow)])
def test_through_the_command(models, damage, part, record_property, tmp_path):
    """Of each file three damages, far from one another, in a process each."""
    count, found = 0, []
    for position, name in enumerate(CONVERTED):
        (folder, file), text = name.split("/"), (models / name).read_text()
        all_cases = list(damaged(text, FILES[name]))
        chosen = all_cases[7 * position + 5 :: len(all_cases) // 3][:3]
        copy = tmp_path / folder / str(position)
        shutil.copytree(models / folder, copy)
        for number, (label, new) in enumerate(chosen):
            if (position == number == 0) != (part == "few"):
                continue
            (copy / file).write_text(text)
            usual = run_command("convert", str(copy), str(copy) + ".usual", "--quiet")
            (copy / file).write_text(new)
            ended = run_command("convert", str(copy), str(copy) + ".converted", "--quiet")
            found += faults_of(f"{name}: {label}", ended, usual, file)
            shutil.rmtree(str(copy) + ".converted", ignore_errors=True)
            shutil.rmtree(str(copy) + ".usual")
            count += 1
    record_property("cases", count)
    assert not found, "\n".join(found)
