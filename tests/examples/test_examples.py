"""The example scripts run on the backend under test, and do what they say."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"


@pytest.fixture(scope="module")
def only_jax(make_environment):
    """An environment with JAX and no other backend, as `pip install gemma-keras[jax]` leaves a machine."""
    return make_environment("jax")


@pytest.fixture
def example(repository, backend, tmp_path, request):
    """`example("name", *arguments)` → what the script printed; every script has to end well and write nothing here.

    On JAX they run where it is the only backend and nothing is set.
    """

    def run(name, *arguments):
        script = str(repository / "examples" / f"{name}.py")
        if backend == "jax":
            environment = request.getfixturevalue("only_jax")
            done = environment.run("python", script, *arguments, cwd=tmp_path, timeout=240, PYTHONPATH=str(repository))
        else:
            variables = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(repository)}
            command = [sys.executable, script, *arguments]
            done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.iterdir()) == []
        return done.stdout

    return run


def numbers(pattern, output):
    """The numbers in the one place of the output that `pattern` (N for a number) describes."""
    found = re.findall(pattern.replace("N", NUMBER), output)
    assert len(found) == 1, output
    return [float(value) for value in found[0]]


@pytest.mark.once
def test_finetune_with_fit(example, backend):
    output = example("finetune_with_fit")
    assert f"parameters on {backend}" in output
    first, last = numbers("loss N -> N", output)
    assert first > 5 and last < 0.1  # first: the logarithm of 320 pieces is 5.8
    right, asked = numbers("right: N of N", output)
    assert asked == 8 and right >= 7
    assert "What colour is coal?  coal is black." in output
    assert "same answer after loading: True" in output


@pytest.mark.once
def test_train_reward_model(example, backend):
    output = example("train_reward_model")
    assert f"parameters on {backend}" in output
    first, last = numbers("loss N -> N", output)
    assert last < 0.2 * first
    before, after = numbers("held-out pairs: N -> N", output)
    assert before < 0.8 and after >= 0.9


@pytest.mark.once
def test_policy_optimization(example, backend):
    output = example("policy_optimization")
    assert f"parameters on {backend}" in output
    rewards = [float(value) for value in re.findall(f"reward {NUMBER}", output)]
    divergences = [float(value) for value in re.findall(f"kl {NUMBER}", output)]
    assert len(rewards) == len(divergences) == 12
    assert rewards[0] < 0.4 and rewards[-1] > rewards[0] + 0.4
    assert divergences[0] == 0 and 1 < divergences[-1] < 30


@pytest.mark.once
def test_switch_backend(example, backend):
    """Two backends side by side; where one is installed there is nothing to differ from."""
    other = {"jax": None, "tensorflow": "torch", "torch": "jax"}[backend]
    if other is not None and importlib.util.find_spec(other) is None:
        pytest.skip(f"needs {other} beside {backend}")
    names = [backend] if other is None else [backend, other]
    output = example("switch_backend", *names)
    assert output.splitlines()[0].split() == ["step", *names]
    rows = [[float(value) for value in line.split()] for line in output.splitlines() if re.match(r" *\d+ ", line)]
    assert [row[0] for row in rows] == list(range(10)) and all(len(row) == 1 + len(names) for row in rows)
    assert rows[0][1] > 5 and rows[-1][1] < 0.6 * rows[0][1], "the loss did not fall"
    differences = [max(row[1:]) - min(row[1:]) for row in rows]
    assert max(differences) < 1e-4
    assert float(output.split()[-1]) == pytest.approx(max(differences), abs=2e-6)


@pytest.mark.no_backend
def test_examples_stay_short(repository):
    lengths = {path.name: len(path.read_text().splitlines()) for path in sorted((repository / "examples").glob("*.py"))}
    assert set(lengths) >= {
        "finetune_with_fit.py",
        "policy_optimization.py",
        "switch_backend.py",
        "train_reward_model.py",
    }
    assert max(lengths.values()) < 80, lengths
