"""The example scripts run on the backend under test, and do what they say."""

import os
import re
import subprocess
import sys

import pytest

NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"


@pytest.fixture
def example(repository, backend, tmp_path):
    """`example("name", *arguments)` → what the script printed; every script has to end well and write nothing here."""

    def run(name, *arguments, **variables):
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(repository), **variables}
        command = [sys.executable, str(repository / "examples" / f"{name}.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.iterdir()) == []
        return done.stdout

    return run


def numbers(pattern, output):
    """The numbers in the one place of the output that `pattern` (N for a number) describes."""
    found = re.findall(pattern.replace("N", NUMBER), output)
    assert len(found) == 1, output
    return [float(value) for value in found[0]]


def test_finetune_with_fit(example, backend):
    output = example("finetune_with_fit")
    assert f"parameters on {backend}" in output
    first, last = numbers("loss N -> N", output)
    assert first > 5 and last < 0.1  # first: the logarithm of 320 pieces is 5.8
    right, asked = numbers("right: N of N", output)
    assert asked == 8 and right >= 7
    assert "What colour is coal?  coal is black." in output
    assert "same answer after loading: True" in output


def test_train_reward_model(example, backend):
    output = example("train_reward_model")
    assert f"parameters on {backend}" in output
    first, last = numbers("loss N -> N", output)
    assert last < 0.2 * first
    before, after = numbers("held-out pairs: N -> N", output)
    assert before < 0.8 and after >= 0.9


def test_policy_optimization(example, backend):
    output = example("policy_optimization")
    assert f"parameters on {backend}" in output
    rewards = [float(value) for value in re.findall(f"reward {NUMBER}", output)]
    divergences = [float(value) for value in re.findall(f"kl {NUMBER}", output)]
    assert len(rewards) == len(divergences) == 12
    assert rewards[0] < 0.4 and rewards[-1] > rewards[0] + 0.4
    assert divergences[0] == 0 and 1 < divergences[-1] < 30


def test_switch_backend(example, backend):
    other = "jax" if backend == "torch" else "torch"
    output = example("switch_backend", backend, other)
    assert re.search(rf"step +{backend} +{other}", output)
    rows = [[float(value) for value in line.split()] for line in output.splitlines() if re.match(r" *\d+ ", line)]
    assert [row[0] for row in rows] == list(range(10))
    assert rows[0][1] > 5 and rows[-1][1] < 0.6 * rows[0][1], "the loss did not fall"
    assert all(abs(ours - theirs) < 1e-4 for _, ours, theirs in rows)
    assert float(output.split()[-1]) == pytest.approx(max(abs(ours - theirs) for _, ours, theirs in rows), abs=2e-6)


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
