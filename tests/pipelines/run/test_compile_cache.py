"""Compiled programs between processes: whose folder, and what of TensorFlow's files is kept."""

import os
import pathlib
import subprocess
import sys

import pytest

from pipelines.run import compile_cache

PROGRAM = """
import tensorflow as tf
print(tf.function(lambda x: tf.reduce_sum(x * x), jit_compile=True)(tf.constant([1.0, 2.0, 3.0])).numpy())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("GEMMA_KERAS_CACHE", str(tmp_path))
    compile_cache.variables("tensorflow")
    return compile_cache.tensorflow_folder()


@pytest.mark.no_backend
def test_each_backend_has_its_variables(folder, tmp_path):
    assert compile_cache.variables("jax")["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "jax")
    flags = {"TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={folder}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    assert compile_cache.variables("tensorflow") == flags
    assert compile_cache.variables("torch") == {}


@pytest.mark.no_backend
def test_another_processor_has_another_folder(folder, monkeypatch):
    monkeypatch.setattr(compile_cache.platform, "machine", lambda: "another")
    assert compile_cache.tensorflow_folder() != folder


@pytest.mark.no_backend
def test_other_flags_of_xla_have_another_folder(folder, monkeypatch):
    """TensorFlow itself would take a program that was compiled under others, with other last bits."""
    found = {compile_cache.tensorflow_folder()}
    for flags in ("--xla_a=1", "--xla_a=1 --xla_b=2", " --xla_b=2  --xla_a=1"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        found.add(compile_cache.tensorflow_folder())
    assert len(found) == 3


@pytest.mark.no_backend
def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEMMA_KERAS_CACHE", str(tmp_path / "file"))
    assert compile_cache.variables("tensorflow") == {}


@pytest.mark.no_backend
def test_only_sealed_and_unchanged_files_are_kept(folder):
    for name in ("kept", "cut", "noise", "later"):
        (folder / f"{name}.pb").write_text(name)
        if name != "later":
            compile_cache.seal("tensorflow")
    (folder / "cut.pb").write_text("cu")
    (folder / "noise.pb.sha256").write_bytes(b"\x82\xff")
    compile_cache.check("torch")
    assert len(list(folder.glob("*.pb"))) == 4
    compile_cache.check("tensorflow")
    assert {path.name for path in folder.iterdir()} == {"kept.pb", "kept.pb.sha256"}


def test_a_program_is_taken_from_the_cache(folder, backend):
    if backend != "tensorflow":
        pytest.skip("JAX looks after its cache itself, PyTorch compiles nothing")

    def run() -> float:
        environment = {**os.environ, **compile_cache.variables("tensorflow")}
        compile_cache.check("tensorflow")
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        compile_cache.seal("tensorflow")
        return float(done.stdout)

    assert run() == 14.0
    (program,) = folder.glob("*.pb")
    written = program.stat().st_mtime_ns
    assert run() == 14.0 and program.stat().st_mtime_ns == written
