"""Memory of loading and converting a checkpoint of Gemma 2B's shape: no second copy of the model, one tensor at a time.

The checkpoint is a sparse file of zeros: it takes no room on disk, and every byte of it is read into memory all the
same.
"""

import json
import math
import os
import pathlib
import struct
import subprocess
import sys

import pytest

from gemma_keras.checkpoints import hugging_face_writer, names
from gemma_keras.config import GemmaConfig
from gemma_keras.text.tokenizer import GemmaTokenizer

PROBE = pathlib.Path(__file__).with_name("load_memory_probe.py")
CONFIG = GemmaConfig.from_name("gemma_2b")
WIDTHS = {"BF16": 2, "F32": 4}
BYTES = 2 * CONFIG.parameter_count  # in bfloat16: 5.0 GB


def write_sparse(folder, code):
    """A folder of Gemma 2B's shape, its header written here by hand, with a small tokenizer."""
    GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, "gemma").save(folder)
    hugging_face_writer.write_config(folder, CONFIG, "bfloat16", None, None)
    header, end = {}, 0
    for name, shape in names.expected_shapes(CONFIG).items():
        start, end = end, end + math.prod(shape) * WIDTHS[code]
        shape = list(names.file_shape(name, shape))
        header[names.hugging_face_name(name, CONFIG)] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return folder


def peak_bytes(repository, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run(
        [sys.executable, str(PROBE), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return int(finished.stdout.split()[-1])


def skip_without_memory():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory < 3 * BYTES:
        pytest.skip(f"needs {3 * BYTES / 1e9:.0f} GB of memory, found {memory / 1e9:.0f}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(WIDTHS))
def test_a_model_is_never_there_twice(repository, tmp_path, code):
    skip_without_memory()
    peak = peak_bytes(repository, "load", write_sparse(tmp_path, code), "bfloat16")
    print(f"{os.environ['KERAS_BACKEND']}: {code} -> bfloat16: peak {peak / BYTES:.3f} of the model's size")
    assert peak < 1.25 * BYTES


@pytest.mark.slow
@pytest.mark.no_backend
@pytest.mark.parametrize(("code", "target", "dtype"), [("F32", "out", "bfloat16"), ("BF16", "out.gguf", "q8_0")])
def test_converting_holds_one_tensor(repository, tmp_path, code, target, dtype):
    skip_without_memory()
    peak = peak_bytes(repository, "convert", write_sparse(tmp_path, code), tmp_path / target, dtype)
    files = [tmp_path / target] if target.endswith(".gguf") else list((tmp_path / target).glob("*.safetensors"))
    largest = max(file.stat().st_size for file in [*files, tmp_path / "model.safetensors"])
    print(f"{code} -> {dtype}: peak {peak / 1e9:.2f} GB, {peak / largest:.3f} of the largest shard")
    # The largest shard that is written: the source's may be larger.
    assert peak < 1.3 * min(largest, 5e9)
