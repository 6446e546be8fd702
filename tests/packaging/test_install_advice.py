"""The advice names packages that an index has, in the ranges that pyproject.toml gives."""

import importlib.metadata
import re
import shlex

import pytest
from packaging.requirements import Requirement

from gemma_keras import backend_choice, install_advice
from gemma_keras.install_advice import install_command

pytestmark = pytest.mark.no_backend


def test_the_installed_metadata_gives_a_range():
    assert re.fullmatch(r"pip install 'jax>=[\d.]+'", install_command("jax"))


@pytest.mark.parametrize("extra", ["jax", "tensorflow", "torch", "gguf", "keras-hub", "trl"])
def test_the_ranges_are_those_of_pyproject(extra, project_table, monkeypatch):
    """As a build of today's sources would note them; what is installed may be of an earlier state."""
    extras = project_table["optional-dependencies"]
    lines = [f"{line}; extra == '{name}'" for name, lines in extras.items() for line in lines]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    words = shlex.split(install_command(extra))
    assert words[:2] == ["pip", "install"]
    ours = {str(Requirement(word)) for word in words[2:]}
    assert ours == {str(Requirement(line)) for line in project_table["optional-dependencies"][extra]}


def test_metadata_as_other_builders_write_it(monkeypatch):
    lines = ["jax>=0.6; extra == 'jax'", 'jax[cuda12] >= 0.6 ; extra == "jax-cuda"', "numpy>=2.0"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert install_command("jax") == "pip install 'jax>=0.6'"
    assert install_command("jax-cuda") == "pip install 'jax[cuda12]>=0.6'"


def test_without_metadata_the_package_itself_is_named(monkeypatch):
    monkeypatch.setattr(install_advice, "DISTRIBUTION", "nobody-has-this")
    assert install_command("torch") == "pip install 'torch'"


def test_with_torch_alone_the_user_is_told_of_it(monkeypatch):
    monkeypatch.setattr(backend_choice, "installed_backends", lambda: ("torch",))
    with pytest.raises(backend_choice.BackendError) as raised:
        backend_choice.choose_backend("jax")
    assert str(raised.value) == (
        f"Backend 'jax' (requested) is not installed. Run: {install_command('jax')}, "
        "or choose one that is installed: torch"
    )
    assert raised.value.alternatives == ("torch",)


def test_with_no_backend_one_is_advised(monkeypatch):
    monkeypatch.setattr(backend_choice, "installed_backends", lambda: ())
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    expected = f"No backend is installed: expected jax, tensorflow or torch. Run: {install_command('jax')}"
    with pytest.raises(backend_choice.BackendError) as raised:
        backend_choice.choose_backend()
    assert str(raised.value) == expected
    with pytest.raises(backend_choice.BackendError) as raised:
        backend_choice.choose_backend("torch")
    assert str(raised.value).endswith(f"Run: {install_command('torch')}")
