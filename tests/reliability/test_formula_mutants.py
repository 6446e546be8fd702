"""Formulas with one fault each: every one must be caught by the closed-form tests."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.no_backend]

MUTANTS = [
    ("pipelines/algorithms/advantages.py", "- relative) / (k - 1)", "- relative) / k"),
    ("pipelines/algorithms/advantages.py", "return relative - others", "return relative + others"),
    (
        "pipelines/algorithms/advantages.py",
        "relative - ops.sum(relative, axis=1",
        "relative + ops.sum(relative, axis=1",
    ),
    ("pipelines/algorithms/advantages.py", "rewards - baseline\n", "rewards + baseline\n"),
    ("pipelines/algorithms/advantages.py", "decay * baseline + (1 - decay)", "(1 - decay) * baseline + (1 - decay)"),
    ("pipelines/algorithms/kl.py", "k1(log_probs - reference_log_probs)", "k1(reference_log_probs - log_probs)"),
    ("pipelines/algorithms/kl.py", "ops.expm1(-log_ratio) + log_ratio", "ops.expm1(log_ratio) - log_ratio"),
    ("pipelines/algorithms/kl.py", "ops.square(log_ratio) / 2", "ops.square(log_ratio)"),
    ("pipelines/algorithms/kl.py", "probs * (log_probs - reference", "probs * -(log_probs - reference"),
    ("pipelines/algorithms/policy_losses.py", "return -ops.sum(terms)", "return ops.sum(terms)"),
    ("pipelines/algorithms/policy_losses.py", "return -ops.sum(gains)", "return ops.sum(gains)"),
    ("pipelines/algorithms/policy_losses.py", "ops.minimum(ratio", "ops.maximum(ratio"),
    (
        "pipelines/algorithms/policy_losses.py",
        "log_probs - _constant(old_log_probs)",
        "_constant(old_log_probs) - log_probs",
    ),
    (
        "pipelines/algorithms/policy_losses.py",
        "ratio < 1 - clip_range, advantages < 0",
        "ratio < 1 - clip_range, advantages > 0",
    ),
    (
        "pipelines/algorithms/preference.py",
        "1 / (1 + decay), decay / (1 + decay)",
        "decay / (1 + decay), 1 / (1 + decay)",
    ),
    ("pipelines/algorithms/preference.py", "np.maximum(p, 1 - p)", "np.minimum(p, 1 - p)"),
    ("gemma_keras/losses.py", "ops.softplus(-difference)", "ops.softplus(difference)"),
    ("gemma_keras/losses.py", "difference - margin", "difference + margin"),
    ("gemma_keras/losses.py", "total = -ops.sum(ops.where(is_target", "total = ops.sum(ops.where(is_target"),
]


@pytest.fixture(scope="module")
def source_copy(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for name in ("gemma_keras", "pipelines", "tests/closed_form", "tests/fixtures"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(repository / name, folder / name)
    assert closed_form_tests(folder) == 0
    return folder


def closed_form_tests(folder):
    """Exit status of the closed-form tests of a source tree: 0 passed, 1 some failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/closed_form"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("file", "right", "wrong"), MUTANTS, ids=[f"{i}" for i in range(len(MUTANTS))])
def test_the_fault_is_caught(source_copy, file, right, wrong):
    path = source_copy / file
    text = path.read_text()
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong))
    try:
        assert closed_form_tests(source_copy) == 1
    finally:
        path.write_text(text)
