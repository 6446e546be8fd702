"""`gemma-keras convert` between the formats, as a user runs it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from gemma_keras.checkpoints import gguf_reader, hugging_face_reader, hugging_face_writer, names
from gemma_keras.config import GemmaConfig
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines import cli

ORACLE = pathlib.Path(__file__).parents[2] / "parity/transformers_oracle"
pytestmark = pytest.mark.no_backend


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A small model with a tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, "gemma")
    config = GemmaConfig(
        vocabulary_size=300,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        hidden_dim=64,
        intermediate_dim=96,
    )
    rng = np.random.default_rng(3)
    shapes = names.expected_shapes(config)
    hugging_face_writer.write_config(folder, config, "float32")
    hugging_face_writer.write_weights(
        folder, ((name, rng.normal(0, 0.3, shape).astype(np.float32)) for name, shape in shapes.items())
    )
    tokenizer.save(folder)
    return folder


def test_folder_to_gguf_and_back(source, tmp_path, capsys):
    file, back = tmp_path / "model.gguf", tmp_path / "back"
    assert cli.main(["convert", str(source), str(file), "--dtype", "float32"]) == 0
    assert cli.main(["convert", str(file), str(back)]) == 0
    captured = capsys.readouterr()
    assert "float32" in captured.out
    doing = [("opening", source), ("writing", file), ("opening", file), ("writing", back)]
    assert captured.err.splitlines() == [f"convert: {what} {place}" for what, place in doing]
    theirs, ours = load_file(source / "model.safetensors"), load_file(back / "model.safetensors")
    assert set(theirs) == set(ours)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, atol=2e-7 if "norm" in name else 0, rtol=0, err_msg=name)


def test_types_of_gguf(source, tmp_path):
    for dtype in ("float16", "bfloat16", "q8_0"):
        assert cli.main(["convert", str(source), str(tmp_path / f"{dtype}.gguf"), "--dtype", dtype]) == 0
    sizes = [(tmp_path / f"{dtype}.gguf").stat().st_size for dtype in ("float16", "bfloat16")]
    assert sizes[0] == sizes[1]
    weights = dict(gguf_reader.read_weights(tmp_path / "bfloat16.gguf"))
    exact = dict(hugging_face_reader.read_weights(source))
    for name, values in exact.items():
        np.testing.assert_allclose(weights[name], values, rtol=2**-8, atol=2e-7, err_msg=name)


@pytest.mark.slow
@pytest.mark.needs("keras_hub")
def test_keras_hub_presets_both_ways(tmp_path):
    """In processes of their own: KerasHub loads a backend."""
    source, preset, back = ORACLE / "gemma1_mha", tmp_path / "preset", tmp_path / "back"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(pathlib.Path(__file__).parents[3])}
    for arguments in ([source, preset, "--keras-hub"], [preset, back, "--dtype", "float32"]):
        command = [sys.executable, "-m", "pipelines", "convert", *map(str, arguments)]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert finished.returncode == 0, finished.stderr[-2000:]
    assert (preset / "model.weights.h5").is_file()
    theirs, ours = load_file(source / "model.safetensors"), load_file(back / "model.safetensors")
    assert set(theirs) == set(ours)
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.gguf", "--dtype", "q4_0"], "--dtype q4_0: expected one of float32, float16, bfloat16, q8_0"),
        (["folder", "--dtype", "q8_0"], "--dtype q8_0: expected one of float32, bfloat16, float16"),
        (["model.gguf", "--keras-hub"], "a .gguf file is not a KerasHub preset"),
        (["model.gguf"], "has no tokenizer, without which llama.cpp opens no file"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(arguments, message, tmp_path, capsys):
    target = tmp_path / arguments[0]
    assert cli.main(["convert", str(ORACLE / "gemma1_mqa"), str(target), *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_a_place_that_cannot_be_written_is_named(source, name, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    for target in (tmp_path / "file" / name, tmp_path / ("x" * 300 + name)):
        assert cli.main(["convert", "--quiet", str(source), str(target)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}") and line.endswith("Name another place")


@pytest.mark.parametrize("target", ["out", "out.gguf"])
def test_a_stopped_conversion_leaves_nothing(source, target, tmp_path):
    """SIGTERM, as a scheduler or `kill` sends it, in the middle of the weights."""
    code = (
        "import os, signal, sys\nfrom gemma_keras.checkpoints import weights\noriginal = "
        "weights.StoredWeights.__iter__\ndef stopping(self):\n    for number, item in enumerate(original(self)):\n     "
        "   if number == 3: os.kill(os.getpid(), signal.SIGTERM)\n        yield item\nweights.StoredWeights.__iter__ = "
        "stopping\nfrom pipelines import cli\nsys.exit(cli.main(sys.argv[1:]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[3])}
    command = [sys.executable, "-c", code, "convert", str(source), str(tmp_path / target)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 143, finished.stderr[-2000:]
    assert not list(tmp_path.iterdir())
