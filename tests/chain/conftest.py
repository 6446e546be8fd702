"""One run of the reduced quickstart for all tests of a session."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = Path(__file__).parents[1] / "fixtures" / "interrupted.py"
STAGES = ("pretrained", "sft", "preferences", "reward", "policy", "evaluation")
TRAINING_STAGES = ("pretrained", "sft", "reward", "policy")
# What a run measures of the machine and not of the models.
TIMES = (
    "step_time", "seconds", "peak_memory_gib",
    "tokens_per_second", "model_flops_utilization", "sampling/tokens_per_second", "sampling/model_flops_utilization",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ChainRun:
    """A run of `chain.yaml`, or of its first stages, in a folder of its own.

    Args:
        folder: the run folder. workflow: the YAML file.
    """

    folder: Path
    workflow: Path
    environment: dict[str, str]

    def command(self, *options: str) -> list[str]:
        """`gemma-keras run` of this workflow into this folder."""
        return [sys.executable, "-m", "pipelines", "run", str(self.workflow), "--out", str(self.folder), *options]

    def start(self, *options: str, **variables: str) -> subprocess.Popen:
        """The command as a process, its output in pipes."""
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            self.command(*options),
            env=environment,
            cwd=self.workflow.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *options: str, **variables: str) -> str:
        """Run the command to its end, which has to be a good one; returns what it printed."""
        process = self.start(*options, **variables)
        output, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        return output

    def interrupt(self, place: str, **variables: str) -> None:
        """Run the command in one process until it kills itself at `STAGE:N`, see `fixtures/interrupted.py`."""
        command = [sys.executable, str(INTERRUPTED), place, *self.command("--in-process", "--quiet")[3:]]
        process = subprocess.run(
            command, env={**self.environment, **variables}, cwd=self.workflow.parent, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip
        assert process.returncode == -signal.SIGKILL, process.stderr

    def stage(self, name: str) -> Path:
        return self.folder / "stages" / name

    def json(self, path: str):
        return json.loads((self.folder / path).read_text(encoding="utf-8"))

    def rows(self, path: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / path).read_text(encoding="utf-8").splitlines()]

    def results(self, stages=STAGES) -> dict:
        """What has to be the same in every run: digests of weights, samples and preferences, and all figures but
        times."""
        found = {}
        for name in stages:
            for file in sorted(path for path in self.stage(name).rglob("*") if path.is_file()):
                if file.name == "files.json":  # has the digests of times
                    continue
                place = file.relative_to(self.folder).as_posix()
                if file.name == "stage.json":
                    found[place] = self.json(place)["key"]
                elif file.name == "final.json":
                    found[place] = without_times(self.json(place))
                elif file.name == "metrics.jsonl":
                    found[place] = [without_times(row) for row in self.rows(place)]
                else:
                    found[place] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found


def without_times(value):
    """The same JSON value without the figures in `TIMES`, at any depth."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def make_chain(repository, tmp_path_factory):
    """`make_chain(stages=n)` → a `ChainRun` of the first n stages, not started, in a fresh folder."""

    def make(stages: int = len(STAGES)) -> ChainRun:
        folder = tmp_path_factory.mktemp("chain")
        kept, text = 0, ""
        for line in (Path(__file__).parent / "chain.yaml").read_text().splitlines(keepends=True):
            kept += line.startswith("    kind:")
            if line.startswith("  ") and line[2] != " " and line.strip().removesuffix(":") in STAGES[stages:]:
                break
            text += line
        assert kept >= stages
        (folder / "chain.yaml").write_text(text)
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        return ChainRun(folder / "run", folder / "chain.yaml", environment)

    return make


@pytest.fixture(scope="session")
def chain(make_chain) -> ChainRun:
    """The finished run that the tests look at; none of them changes it. One process for all stages, to save
    start-up."""
    run = make_chain()
    run.finish("--in-process", "--quiet")
    return run


@pytest.fixture
def chain_copy(chain, tmp_path) -> ChainRun:
    """A copy of the finished run that a test may change."""
    shutil.copytree(chain.folder, tmp_path / "run")
    return dataclasses.replace(chain, folder=tmp_path / "run")


@pytest.fixture(scope="session")
def more(chain, tmp_path_factory) -> ChainRun:
    """A run of `more_kinds.yaml` from the chain's folders."""
    folder = tmp_path_factory.mktemp("more")
    (folder / "run").symlink_to(chain.folder)
    for name in ("more_kinds.yaml", "choices.jsonl"):
        shutil.copy(Path(__file__).parent / name, folder)
    run = dataclasses.replace(chain, folder=folder / "more", workflow=folder / "more_kinds.yaml")
    run.finish("--in-process", "--quiet")
    return run
