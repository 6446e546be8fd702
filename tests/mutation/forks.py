"""Runs tests in copies of the source tree, each in a child of this process.

A child begins with everything in memory that is not ours: importing a backend takes seconds, forking none. So this
process must never import `gemma_keras` or `pipelines`, and no backend may start threads in it before it forks.
"""

import compileall
import importlib
import json
import math
import os
import pathlib
import py_compile
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

OURS = ("gemma_keras", "pipelines")
COPIED = (
    *OURS, "tests", "workflows", "docs", "examples", "benchmarks", "pyproject.toml", "README.md", "CONTRIBUTING.md",
)  # fmt: skip
PRELOADED = (
    "pytest", "torch", "keras", "numpy", "scipy", "pydantic", "yaml", "jaxtyping", "beartype", "safetensors.numpy",
    "sentencepiece", "hypothesis", "rich.progress", "jinja2", "ml_dtypes",
)  # fmt: skip
TIME_IS_UP = -signal.SIGXCPU
PATIENCE = 20  # seconds on the clock for each of processor time that a job may take, which other work may have
PYTEST_OPTIONS = ("-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-m", "not slow")


class Job(NamedTuple):
    """Tests to run on the tree with one file's text changed.

    Attributes:
        name: comes back with the outcome. file, text: the changed file, or empty for the tree as it is.
        tests: arguments for pytest. seconds: of processor time, after which it is stopped: a busy machine takes none.
    """

    name: str
    file: str
    text: str
    tests: tuple[str, ...]
    seconds: float


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
        name: of the job. status: pytest's exit status, or minus the signal that ended it (`TIME_IS_UP`, or SIGKILL for
        one that did nothing for so long that it must hang). passed: how many tests passed.
        failed: the first test that did not, or empty; a file of tests that cannot even be imported is none.
        seconds: of processor time. log: the last lines of what was printed.
    """

    name: str
    status: int
    passed: int
    failed: str
    seconds: float
    log: str


def _preload(folder: pathlib.Path) -> None:
    """Import what is not ours, with the settings of `tests/conftest.py`; `folder` has no `keras.json`."""
    backend = os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"KERAS_HOME": str(folder), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # JAX and TensorFlow have threads once they are loaded, which no child would have: each child loads them itself.
    for name in PRELOADED if backend == "torch" else ("pytest",):
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def run_all(root: pathlib.Path, folder: pathlib.Path, jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Outcomes as they come, at most `workers` jobs at a time.

    Args:
        root: of the source tree, which is only read. folder: for the copies, one a worker.
    """
    if not jobs:
        return
    _preload(folder)
    loaded = [name for name in sys.modules if name.split(".")[0] in OURS]
    if loaded:
        raise RuntimeError(f"A child must import our packages from its copy, but they are loaded: {loaded[:3]}")
    copies = [_copy(root, folder / f"copy{number}") for number in range(min(workers, len(jobs)))]
    free, waiting, running = list(copies), list(jobs), {}
    try:
        while waiting or running:
            while waiting and free:
                job, copy = waiting.pop(0), free.pop()
                original = (copy / job.file).read_bytes() if job.file else b""
                running[_start(job, copy)] = (job, copy, original, time.monotonic())
            time.sleep(0.05)
            for child, (job, copy, original, started) in list(running.items()):
                found, status, usage = os.wait4(child, os.WNOHANG)
                if not found and time.monotonic() - started < PATIENCE * job.seconds:
                    continue
                del running[child]
                if not found:
                    status, usage = _stop(child)
                if job.file:
                    (copy / job.file).write_bytes(original)
                free.append(copy)
                seconds = usage.ru_utime + usage.ru_stime
                yield _outcome(job, copy, os.waitstatus_to_exitcode(status), seconds)
    finally:
        for child in running:
            _stop(child)


def _copy(root: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    copy.mkdir(parents=True)
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, copy / name)
    for name in OURS:
        # By content: a mutant may have the length and the second of the file that it replaces.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(copy / name, quiet=2, invalidation_mode=mode)
    return copy


def _start(job: Job, copy: pathlib.Path) -> int:
    if job.file:
        (copy / job.file).write_text(job.text, encoding="utf-8")
    for name in ("outcome.json", "log.txt"):
        (copy / name).unlink(missing_ok=True)
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = _child(job, copy)
    finally:
        os._exit(status)


def _child(job: Job, copy: pathlib.Path) -> int:
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(job.seconds), resource.getrlimit(resource.RLIMIT_CPU)[1]))
    log = os.open(copy / "log.txt", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    watch = _Watch()
    status = int(pytest.main([*PYTEST_OPTIONS, *job.tests], plugins=[watch]))
    (copy / "outcome.json").write_text(json.dumps([watch.passed, watch.failed]))
    sys.stdout.flush()
    return status


class _Watch:
    """A plugin that counts what passed and keeps the first test that did not. No test is stopped by the clock."""

    def __init__(self) -> None:
        self.passed, self.failed = 0, ""

    def pytest_runtest_logreport(self, report) -> None:
        self.passed += report.when == "call" and report.passed
        if report.failed and not self.failed:
            self.failed = report.nodeid

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self) -> bool:
        return True


def _stop(child: int) -> tuple[int, resource.struct_rusage]:
    """End a child and what it started; its status and what it used."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)
    return os.wait4(child, 0)[1:]


def _outcome(job: Job, copy: pathlib.Path, status: int, seconds: float) -> Outcome:
    outcome, log = copy / "outcome.json", copy / "log.txt"
    passed, failed = json.loads(outcome.read_text()) if outcome.is_file() else (0, "")
    text = log.read_text(errors="replace") if log.is_file() else ""
    return Outcome(job.name, status, passed, failed, round(seconds, 1), "\n".join(text.splitlines()[-15:]))
