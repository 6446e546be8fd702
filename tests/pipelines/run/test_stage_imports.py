"""What the processes of a run load: stages no figures, the runner no Keras; the report is drawn all the same."""

import json
import os
import subprocess
import sys

import pytest

from pipelines.stages import registry

pytestmark = pytest.mark.once

WORKFLOW = """\
name: drawn
seed: 5
model:
  config: {num_layers: 1, num_query_heads: 1, num_key_value_heads: 1, head_dim: 8, hidden_dim: 16, intermediate_dim: 16}
  tokenizer: {vocabulary_size: 400}
stages:
  base:
    kind: pretraining
    data: {task: small_world, split: pretraining, size: 40}
    max_length: 32
    batch_size: 8
    eval_every: 2
"""
# Each process leaves the list of what it had imported when it ended.
AT_EXIT = """\
import atexit, json, os, sys
def leave():
    with open(os.path.join({folder!r}, f"{{os.getpid()}}.json"), "w") as file:
        json.dump([sys.argv, sorted(name for name in sys.modules if sys.modules[name] is not None)], file)
atexit.register(leave)
"""


@pytest.fixture(scope="module")
def run(repository, tmp_path_factory):
    """A run of one stage, and each of its processes as (arguments, modules)."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in ("hook", "processes"):
        (folder / name).mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(AT_EXIT.format(folder=str(folder / "processes")))
    (folder / "w.yaml").write_text(WORKFLOW)
    command = [sys.executable, "-m", "pipelines", "run", "w.yaml", "--out", "run", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(repository)])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    processes = [json.loads(path.read_text()) for path in (folder / "processes").glob("*.json")]
    return folder / "run", [(arguments, set(modules)) for arguments, modules in processes]


def test_a_stage_loads_keras_without_figures(run):
    ((_, modules),) = [one for one in run[1] if "--lifeline" in one[0]]
    assert "keras" in modules
    assert "matplotlib" not in modules


def test_the_runner_draws_without_keras(run):
    ((_, modules),) = [one for one in run[1] if one[0][-1] == "--quiet" and "--lifeline" not in one[0]]
    assert "matplotlib" in modules
    assert "keras" not in modules


def test_every_figure_of_the_report_is_drawn(run):
    from pipelines.report import page

    drawn = (run[0] / "report.html").read_text().count("<svg")
    assert drawn >= 2, "the chain and a curve of the training loss"
    page.write(run[0], registry.reports())
    assert (run[0] / "report.html").read_text().count("<svg") == drawn


def test_a_command_that_builds_a_model_loads_keras_without_figures(repository):
    """And whoever wants figures there later gets them."""
    code = (
        "import sys; from pipelines.commands.backend import use_backend; use_backend(None)\n"
        "print('keras' in sys.modules, 'matplotlib' in sys.modules)\n"
        "import matplotlib; print(matplotlib.__name__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True False", "matplotlib"], done.stderr
