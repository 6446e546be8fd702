"""Sizes that no machine holds, and files that are none: judged before anything is built or opened."""

import os
import subprocess
import sys

import pytest

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.gguf_header import read_header
from gemma_keras.checkpoints.hugging_face_reader import read_json
from gemma_keras.checkpoints.resolve import open_tokenizer
from gemma_keras.checkpoints.safetensors_file import read_header as read_safetensors
from gemma_keras.config import GemmaConfig
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.jsonl import read_jsonl
from pipelines.data.tables import saved_rows, table_rows
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.files import read_json as read_run_json
from pipelines.host.states import MANIFEST, read_manifest
from pipelines.schema import model
from pipelines.schema.model import ScratchModel
from pipelines.workflow.yaml_reader import read_file

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile files and settings")]


def problems(**config):
    return list(ScratchModel.model_validate({"config": config}).problems())


def test_a_thousand_layers_are_the_most():
    assert GemmaConfig(num_layers=1000).num_layers == 1000
    with pytest.raises(ValueError, match="`num_layers` must be at most 1000. Received: num_layers=1000000000"):
        GemmaConfig(num_layers=10**9)
    ((path, message),) = problems(num_layers=10**9)
    assert path == ("config",) and "num_layers=1000000000" in message


def test_what_cannot_be_trained_in_this_memory_is_told_its_size(monkeypatch):
    """One layer of hidden 8, one head of 8, feed-forward 8: 3 scales of 8, 4 products of 8 × 8, 3 more of the
    feed-forward, and an embedding of 512 × 8: 24 + 448 + 4096 parameters of 16 bytes."""
    small = {"num_layers": 1, "hidden_dim": 8, "intermediate_dim": 8, "num_query_heads": 1, "num_key_value_heads": 1}
    parameters = 24 + 448 + 4096
    monkeypatch.setattr(model, "total_memory", lambda: 16 * parameters)
    assert problems(**small, head_dim=8) == []
    monkeypatch.setattr(model, "total_memory", lambda: 16 * parameters - 1)
    ((_, message),) = problems(**small, head_dim=8)
    assert message.startswith("4,568 parameters need 0.0 GiB to be trained; this machine has 0.0.")
    monkeypatch.undo()
    ((_, message),) = problems(hidden_dim=2**31, intermediate_dim=2**31)
    assert "parameters need" in message and "this machine has" in message


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (read_file, ConfigError),
        (lambda path: list(read_jsonl(path)), DataError),
        (read_header, CheckpointError),
        (read_safetensors, CheckpointError),
        (read_json, CheckpointError),
        (lambda path: list(table_rows("parquet", [path])), DataError),
        (lambda path: list(table_rows("csv", [path])), DataError),
        (lambda path: list(table_rows("arrow", [path])), DataError),
        (lambda path: list(saved_rows(path.parent, None, 0, None)), DataError),
        (GemmaTokenizer.from_file, OSError),
        (GemmaTokenizer, OSError),
        (read_run_json, DataError),
        (lambda path: read_manifest(path.parent), ValueError),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.timeout(60)
def test_what_is_no_file_is_not_opened(tmp_path, read, error, kind):
    """Nobody writes into the pipe: opening it would wait for ever."""
    path = tmp_path / MANIFEST
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(error, match="a pipe, device or socket; expected a file"):
        read(path)


def validated(folder):
    command = [sys.executable, "-m", "pipelines", "validate", "w.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_validate_ends_at_once(tmp_path):
    os.mkfifo(tmp_path / "w.yaml")
    done = validated(tmp_path)
    assert done.returncode == 2 and "w.yaml: cannot read the workflow file (a pipe, device or socket" in done.stderr


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.arrow", "rows.jsonl"])
def test_validate_names_data_that_are_no_file(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "w.yaml").write_text(
        "name: x\nmodel: {config: {num_layers: 1}}\nstages:\n  base:\n    kind: pretraining\n"
        f"    data: {{path: {name}, text: text}}\n"
    )
    done = validated(tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 65 and f"{name}:1: cannot be read: a pipe, device or socket; expected a file" in line


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.timeout(60)
def test_a_folder_whose_tokenizer_is_no_file(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"no tokenizer there; expected .*{name}"):
        open_tokenizer(tmp_path)
