"""Which backend is used where nothing is set: the one that is installed, as `pip install gemma-keras[jax]` leaves a
machine.

Order: the workflow file, KERAS_BACKEND, the user's Keras config file, the one backend installed.
"""

import json

import pytest

pytestmark = pytest.mark.no_backend

SHOW = "import gemma_keras; gemma_keras.GemmaBackbone; import keras; print(keras.backend.backend())"


@pytest.fixture(scope="module")
def only_jax(make_environment):
    """An environment with JAX and no other backend."""
    return make_environment("jax")


def show(environment, repository, home, code=SHOW, **variables):
    return environment.run("python", "-c", code, PYTHONPATH=str(repository), HOME=str(home), **variables)


def test_environment_has_no_other_backend(only_jax):
    code = "import importlib.util as u; print([m for m in ('jax', 'tensorflow', 'torch') if u.find_spec(m)])"
    assert only_jax.run("python", "-c", code).stdout.strip() == "['jax']"


def test_the_installed_backend_is_chosen_at_every_start(only_jax, repository, tmp_path):
    # Twice, because Keras leaves a config file in a fresh home, and that file names TensorFlow.
    for _ in range(2):
        done = show(only_jax, repository, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "jax"


@pytest.mark.needs("torch")
def test_keras_backend_is_respected(make_environment, repository, tmp_path):
    both = make_environment("jax", "torch")
    for name in ("torch", "jax"):
        done = show(both, repository, tmp_path, KERAS_BACKEND=name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == name


@pytest.mark.needs("torch")
def test_the_users_config_file_is_respected(make_environment, repository, tmp_path):
    both = make_environment("jax", "torch")
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps({"backend": "torch", "floatx": "float32"}))
    done = show(both, repository, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch"
    done = show(both, repository, tmp_path, KERAS_BACKEND="jax")
    assert done.stdout.strip() == "jax", "KERAS_BACKEND goes before the config file"


def test_a_backend_that_is_not_installed_is_named_with_a_remedy(only_jax, repository, tmp_path):
    done = show(only_jax, repository, tmp_path, KERAS_BACKEND="torch")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    # The sources are only on the path there: no metadata says which versions.
    assert last.endswith("Run: pip install 'torch', or choose one that is installed: jax")


def test_import_is_light(only_jax, repository, tmp_path):
    modules = (
        "gemma_keras",
        "gemma_keras.config",
        "gemma_keras.random",
        "gemma_keras.text.tokenizer",
        "gemma_keras.text.chat",
    )
    for module in modules:
        code = f"import sys, {module}; print(sorted({{'keras', 'jax', 'datasets', 'matplotlib'}} & set(sys.modules)))"
        done = show(only_jax, repository, tmp_path, code=code)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[]", module
