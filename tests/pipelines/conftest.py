"""Fixtures for runs with stand-in stages."""

import importlib.util
from pathlib import Path

import pytest

_PROGRAM = Path(__file__).parents[1] / "fixtures/stand_in_stages.py"
WORKFLOW = """\
name: stand_in
seed: 3
backend: jax
model: {config: {num_layers: 2}}
stages:
  base:
    kind: pretraining
    data: {path: texts.jsonl, text: text}
  sft:
    kind: instruction_tuning
    from: base
    data: {task: small_world, split: sft, size: 9}
    learning_rate: 1e-4
  other:
    kind: instruction_tuning
    from: base
    data: {task: small_world, split: sft, size: 5}
  evaluation:
    kind: evaluation
    compare: [sft, other]
    data: {task: small_world, split: heldout, size: 9}
"""


@pytest.fixture
def workflow_file(tmp_path):
    """A workflow of four stages and its data, in a fresh folder."""
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    path = tmp_path / "w.yaml"
    path.write_text(WORKFLOW)
    return path


@pytest.fixture
def all_backends(monkeypatch):
    """As where all three are installed; nothing is loaded."""
    monkeypatch.setattr("gemma_keras.backend_choice.installed_backends", lambda: ("tensorflow", "jax", "torch"))


@pytest.fixture
def stand_ins(monkeypatch):
    """The stages of this process are stand-ins; so are those of the processes that it starts."""
    spec = importlib.util.spec_from_file_location("stand_in_stages", _PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for owner, name in (
        (module.stage_process, "command"),
        (module.registry, "stage_function"),
        (module.runner, "write_results"),
        (module.state_module, "COST_SHARE"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    module.patch()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return module
