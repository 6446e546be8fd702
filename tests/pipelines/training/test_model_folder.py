"""A model folder is there whole or not at all."""

import errno
import subprocess
import sys

import pytest

from pipelines.host.errors import DiskError
from pipelines.training.model_folder import save_model, write_folder

pytestmark = pytest.mark.no_backend


class Model:
    """Writes two files, and stops between them where it is told to."""

    def __init__(self, text, error=None):
        self.text, self.error = text, error

    def save_to_preset(self, folder):
        with open(f"{folder}/config.json", "w") as file:
            file.write(self.text)
        if self.error is not None:
            raise self.error
        with open(f"{folder}/model.safetensors", "w") as file:
            file.write(self.text * 2)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_save_replaces_the_older_one_and_leaves_nothing_else(tmp_path):
    save_model(Model("a"), tmp_path / "stage" / "model")
    save_model(Model("b"), tmp_path / "stage" / "model")
    assert contents(tmp_path / "stage" / "model") == {"config.json": "b", "model.safetensors": "bb"}
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("x"), ValueError),
    ],
)
def test_a_save_that_stops_half_way_leaves_the_older_one(tmp_path, error, raised):
    save_model(Model("a"), tmp_path / "model")
    with pytest.raises(raised):
        save_model(Model("b", error), tmp_path / "model")
    assert contents(tmp_path / "model") == {"config.json": "a", "model.safetensors": "aa"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_first_save_that_stops_half_way_leaves_nothing(tmp_path):
    with pytest.raises(DiskError, match="cannot write .No space left on device"):
        save_model(Model("b", OSError(errno.ENOSPC, "No space left on device")), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    write_folder(tmp_path / "model", lambda folder: (folder / "config.json").write_text("old"))
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for place in (tmp_path, tmp_path / "model"):
        left = place / f".writing-{int(dead.stdout)}-0"
        left.mkdir()
        (left / "config.json").write_text("half")
    (tmp_path / "model" / "adapter").mkdir()
    write_folder(tmp_path / "model", lambda folder: (folder / "config.json").write_text("whole"))
    assert contents(tmp_path / "model") == {"config.json": "whole"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
