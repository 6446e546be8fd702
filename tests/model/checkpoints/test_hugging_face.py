"""Weights in Hugging Face folders: ours against the safetensors library and transformers, shards, padding, dtypes,
failed writes."""

import json
import resource
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from gemma_keras.checkpoints import hub, hugging_face_reader, hugging_face_writer, names, resolve
from gemma_keras.checkpoints.errors import CheckpointError

pytestmark = pytest.mark.no_backend


def random_weights(config, with_score=False, seed=0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = names.expected_shapes(config, with_score)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, config, weights, dtype="float32", reward=None, shard_bytes=5e9):
    hugging_face_writer.write_config(folder, config, dtype, reward)
    hugging_face_writer.write_weights(folder, iter(weights.items()), shard_bytes)


def library_arrays(folder) -> dict[str, np.ndarray]:
    """All tensors by the safetensors library."""
    arrays = {}
    for file in sorted(folder.glob("*.safetensors")):
        arrays.update(safetensors.numpy.load_file(file))
    return arrays


def test_written_bytes_by_the_safetensors_library(tiny_config, tmp_path):
    weights = random_weights(tiny_config)
    write(tmp_path, tiny_config, weights)
    theirs = library_arrays(tmp_path)
    assert len(theirs) == len(weights)
    np.testing.assert_array_equal(theirs["model.embed_tokens.weight"], weights["embedding"])
    np.testing.assert_array_equal(theirs["model.layers.2.self_attn.o_proj.weight"], weights["layers.2.o_proj"].T)
    np.testing.assert_array_equal(theirs["model.layers.1.mlp.down_proj.weight"], weights["layers.1.down_proj"].T)
    after_attention = "feed_forward_norm" if tiny_config.family == "gemma" else "post_attention_norm"
    np.testing.assert_array_equal(
        theirs["model.layers.0.post_attention_layernorm.weight"], weights[f"layers.0.{after_attention}"]
    )
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("shard_bytes", [5e9, 4000])
def test_round_trip_is_bit_equal(tiny_config, tmp_path, shard_bytes):
    weights = random_weights(tiny_config)
    write(tmp_path, tiny_config, weights, shard_bytes=shard_bytes)
    read = dict(hugging_face_reader.read_weights(tmp_path))
    assert set(read) == set(weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(read[name], values, err_msg=name)
        assert read[name].dtype == np.float32


def test_bfloat16_is_rounded_to_nearest_even_and_cast_back(tiny_configs, tmp_path):
    config = tiny_configs["gemma3"]
    weights = random_weights(config)
    write(tmp_path, config, weights, dtype="bfloat16")
    assert hugging_face_reader.read_dtype(tmp_path) == "bfloat16"
    read = dict(hugging_face_reader.read_weights(tmp_path))
    wide = dict(hugging_face_reader.read_weights(tmp_path, dtype="float32"))
    for name, values in weights.items():
        bits = values.view(np.uint32)
        nearest_even = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
        assert read[name].dtype == ml_dtypes.bfloat16 and wide[name].dtype == np.float32
        np.testing.assert_array_equal(wide[name], nearest_even)
        np.testing.assert_array_equal(read[name].astype(np.float32), nearest_even)


def test_shards_and_their_index(tiny_configs, tmp_path):
    config = tiny_configs["gemma2"]
    weights = random_weights(config)
    write(tmp_path, config, weights, shard_bytes=8000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert index["metadata"]["total_size"] == 4 * config.parameter_count
    for shard in shards:
        held = set(safetensors.numpy.load_file(shard))
        assert held == {tensor for tensor, file in index["weight_map"].items() if file == shard.name}
        assert shard.stat().st_size < 8000 + 3000
    # A later save in one file leaves nothing of the shards, and the other way round.
    hugging_face_writer.write_weights(tmp_path, iter(weights.items()))
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    hugging_face_writer.write_weights(tmp_path, iter(weights.items()), shard_bytes=8000)
    assert not (tmp_path / "model.safetensors").exists()


def test_rows_beyond_the_vocabulary_are_dropped(tiny_configs, tmp_path):
    config = tiny_configs["gemma"]
    weights = random_weights(config)
    write(tmp_path, config, weights)
    arrays = library_arrays(tmp_path)
    padding = np.full((7, config.hidden_dim), np.nan, np.float32)
    arrays["model.embed_tokens.weight"] = np.concatenate([arrays["model.embed_tokens.weight"], padding])
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(dict(hugging_face_reader.read_weights(tmp_path))["embedding"], weights["embedding"])


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_vision_checkpoint(tiny_configs, tmp_path, prefix):
    config = tiny_configs["gemma3"]
    weights = random_weights(config)
    write(tmp_path, config, weights)
    arrays = {key.replace("model.", prefix, 1): values for key, values in library_arrays(tmp_path).items()}
    arrays["vision_tower.vision_model.embeddings.patch_embedding.weight"] = np.zeros((4, 4), np.float32)
    arrays["multi_modal_projector.mm_input_projection_weight"] = np.zeros((4, 4), np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    table = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": table}))
    read = dict(hugging_face_reader.read_weights(tmp_path))
    assert set(read) == set(weights) and hugging_face_reader.read_dtype(tmp_path) == "float32"
    np.testing.assert_array_equal(read["layers.2.gate_proj"], weights["layers.2.gate_proj"])


def test_a_reward_models_head(tiny_config, tmp_path):
    weights = random_weights(tiny_config, with_score=True)
    write(tmp_path, tiny_config, weights, reward={"reward_mean": 1.0, "reward_std": 2.0})
    np.testing.assert_array_equal(library_arrays(tmp_path)["score.weight"], weights["score"].T)
    np.testing.assert_array_equal(dict(hugging_face_reader.read_weights(tmp_path))["score"], weights["score"])
    without = {name: values for name, values in weights.items() if name != "score"}
    with pytest.raises(CheckpointError, match="1 tensors were never written: score.weight"):
        hugging_face_writer.write_weights(tmp_path, iter(without.items()))


@pytest.mark.needs("torch", "transformers")
@pytest.mark.parametrize("is_reward", [False, True])
def test_transformers_opens_what_is_written_without_a_warning_about_weights(tiny_config, tmp_path, is_reward):
    transformers = pytest.importorskip("transformers")
    weights = random_weights(tiny_config, with_score=is_reward)
    write(
        tmp_path,
        tiny_config,
        weights,
        reward={"reward_mean": 0.0, "reward_std": 1.0} if is_reward else None,
        shard_bytes=9000,
    )
    kind = transformers.AutoModelForSequenceClassification if is_reward else transformers.AutoModelForCausalLM
    theirs, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    state = {key: value.numpy() for key, value in theirs.state_dict().items() if key != "lm_head.weight"}
    assert set(state) == {names.hugging_face_name(name, tiny_config) for name in weights}
    for name, values in weights.items():
        expected = values.T if names.is_transposed(name) else values
        np.testing.assert_array_equal(state[names.hugging_face_name(name, tiny_config)], expected, err_msg=name)
    # And what transformers saves, we read.
    theirs.save_pretrained(tmp_path / "theirs")
    assert hugging_face_reader.read_config(tmp_path / "theirs") == tiny_config
    assert (hugging_face_reader.read_reward(tmp_path / "theirs") is not None) == is_reward
    for name, values in hugging_face_reader.read_weights(tmp_path / "theirs"):
        np.testing.assert_array_equal(values, weights.pop(name), err_msg=name)
    assert not weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layers.1.q_proj"), "1 tensors were never written: model.layers.1.self_attn.q_proj.weight"),
        (lambda w: w.update({"layers.9.q_proj": np.zeros(3)}), "'layers.9.q_proj' is no weight of the gemma3 model"),
        (
            lambda w: w.update({"final_norm": np.zeros(3)}),
            "weight 'final_norm': expected shape (16,) by config.json. Received: (3,)",
        ),
    ],
)
def test_a_refused_write_leaves_the_old_files(tiny_configs, tmp_path, change, message):
    config = tiny_configs["gemma3"]
    weights = random_weights(config)
    write(tmp_path, config, weights)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    change(weights)
    with pytest.raises(CheckpointError) as error:
        hugging_face_writer.write_weights(tmp_path, iter(weights.items()))
    assert message in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failing_source_of_arrays_leaves_the_old_files(tiny_configs, tmp_path):
    config = tiny_configs["gemma"]
    write(tmp_path, config, random_weights(config))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stopped():
        yield "embedding", np.zeros((97, 16), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hugging_face_writer.write_weights(tmp_path, stopped())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_old_files(tiny_configs, tmp_path):
    """In a process of its own whose files may not grow past 20 kB, a real refusal of the operating system."""
    config = tiny_configs["gemma3"].replace(intermediate_dim=512)
    write(tmp_path, config, random_weights(config))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    program = (
        "import sys, numpy as np\nfrom gemma_keras.checkpoints import hugging_face_reader, hugging_face_writer, "
        "names\nshapes = names.expected_shapes(hugging_face_reader.read_config(sys.argv[1]))\ntry:\n    "
        "hugging_face_writer.write_weights(sys.argv[1], ((n, np.zeros(s, np.float32)) for n, s in "
        "shapes.items()))\nexcept OSError as error:\n    print('refused', error.errno)\n"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], preexec_fn=limit, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_reading_files_needs_no_keras():
    program = (
        "import sys\nfrom gemma_keras.checkpoints import hugging_face_reader, hugging_face_writer, "
        "resolve\nprint(sorted({'keras', 'jax', 'torch', 'tensorflow', 'gguf', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )


def test_a_weight_written_twice_is_refused(tiny_configs, tmp_path):
    config = tiny_configs["gemma"]
    weights = random_weights(config)
    hugging_face_writer.write_config(tmp_path, config, "float32")
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' was not announced or is written twice"):
        hugging_face_writer.write_weights(tmp_path, [*weights.items(), ("final_norm", weights["final_norm"])])


def test_resolve(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").touch()
    (tmp_path / "model.safetensors").touch()
    assert resolve.resolve(tmp_path) == tmp_path
    assert resolve.resolve(str(tmp_path / "model.gguf")) == tmp_path / "model.gguf"
    with pytest.raises(CheckpointError, match="give its folder"):
        resolve.resolve(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="nowhere/at/all: no such folder or file"):
        resolve.resolve("nowhere/at/all")
    asked = []
    monkeypatch.setattr(hub, "download", lambda source, files: asked.append(source) or tmp_path)
    for name in ("google/gemma-2b", "gemma_instruct_2b_en", "gemma3_270m", "someone/models/q4/gemma.gguf"):
        assert resolve.resolve(name) == tmp_path
    expected = [
        ("google/gemma-2b", None),
        ("google/gemma-2b-it", None),
        ("google/gemma-3-270m", None),
        ("someone/models", "q4/gemma.gguf"),
    ]
    assert [(source.repository, source.file) for source in asked] == expected


def test_a_hub_id_without_a_network_says_so():
    with pytest.raises(CheckpointError, match="google/no-such-gemma: no such folder here, not in the hub's cache"):
        resolve.resolve("google/no-such-gemma")
