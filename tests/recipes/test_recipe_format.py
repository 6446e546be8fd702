"""The recipe for a file format, followed: `convert`, workflows and messages know it from its file and one line."""

import shutil

import numpy as np
import pytest
from recipe import ROOT, Recipe

from gemma_keras.checkpoints import hugging_face_reader

pytestmark = pytest.mark.no_backend

MODEL = ROOT / "tests/parity/cross_backend_oracle/tuned/model"
WORKFLOW = """\
name: archive
backend: jax
model: ./model.npz
stages:
  sft:
    kind: instruction_tuning
    data: {task: small_world, split: sft, size: 9}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return Recipe("A file format", tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def archive(recipe, tmp_path_factory):
    """The tuned model of the tests as an archive."""
    folder = tmp_path_factory.mktemp("archive")
    done = recipe.command("convert", str(MODEL), "model.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "float32" in done.stdout
    return folder / "model.npz"


def test_one_file_and_one_line(recipe):
    assert recipe.changed == ["gemma_keras/checkpoints/formats.py"]


def test_there_and_back_every_tensor_is_the_same(recipe, archive, tmp_path):
    done = recipe.command("convert", str(archive), "back", "--dtype", "float32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = dict(hugging_face_reader.read_weights(MODEL, "float32"))
    after = dict(hugging_face_reader.read_weights(tmp_path / "back"))
    assert set(before) == set(after)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)
    assert (tmp_path / "back/tokenizer.model").read_bytes() == (MODEL / "tokenizer.model").read_bytes()
    assert hugging_face_reader.read_config(tmp_path / "back") == hugging_face_reader.read_config(MODEL)


def test_a_workflow_starts_from_it_and_its_key_follows_the_file(recipe, archive, tmp_path):
    shutil.copy(archive, tmp_path / "model.npz")
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    assert recipe.command("validate", "w.yaml", cwd=tmp_path).returncode == 0
    program = (
        "from pathlib import Path\nfrom pipelines.run.planning import plan\n"
        "from pipelines.workflow.loading import load\n"
        "loaded = load(Path('w.yaml'))\nprint(plan(loaded.workflow, loaded.base_folder, Path('out'))[0].key)"
    )
    keys = [recipe.python("-c", program, cwd=tmp_path).stdout]
    with open(tmp_path / "model.npz", "ab") as file:
        file.write(b"\0")
    keys.append(recipe.python("-c", program, cwd=tmp_path).stdout)
    assert len(keys[0].strip()) == 64 and keys[0] != keys[1]


def test_messages_name_it(recipe, archive, tmp_path):
    (tmp_path / "w.yaml").write_text(WORKFLOW.replace("./model.npz", "nothing.npz"))
    assert "w.yaml:3:8: no folder or file 'nothing.npz'" in recipe.command("validate", "w.yaml", cwd=tmp_path).stderr
    done = recipe.command("convert", str(archive), "x.npz", "--dtype", "q8_0", cwd=tmp_path)
    assert done.returncode == 2 and "--dtype q8_0: expected one of float32, float16" in done.stderr
    assert "a .npz file" in recipe.command("convert", "--help", cwd=tmp_path).stdout.replace("\n", " ").replace(
        "  ", ""
    )
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    done = recipe.command("convert", "foreign.npz", "folder", cwd=tmp_path)
    assert done.returncode == 65 and "foreign.npz: no model of ours" in done.stderr
