"""The parent's side: starts one worker a library, asks them in turn, collects samples."""

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.cases import Case

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = "ours"
# Each library at its own defaults, but none may keep compiled programs between runs: the first call is measured too.
_REMOVED = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "TF_XLA_FLAGS")


class WorkerFailed(RuntimeError):
    """A worker ended or did not answer; the message holds the end of what it wrote."""


@dataclasses.dataclass
class Measurement:
    """What one library did in one case on one backend.

    Attributes:
        seconds: of each sample, one step of the case. first_call: seconds of the very first one, compilation included.
        memory_gib: largest resident memory of the library's process. error: why there is no figure, else None.
    """

    case: str
    backend: str
    engine: str
    first_call: float | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    memory_gib: float | None = None
    parameters: int | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        """Seconds a step, None where nothing was measured."""
        return statistics.median(self.seconds) if self.seconds else None


class Worker:
    """A process that serves samples of one library.

    Args:
        case, backend, engine: what it builds.
        tiny: small sizes.
        timeout: seconds that building, or one sample, may take.
    """

    def __init__(self, case: Case, backend: str, engine: str, tiny: bool, timeout: float):
        self.timeout = timeout
        self.log = tempfile.TemporaryFile(mode="w+")
        read_end, write_end = os.pipe()
        command = [
            sys.executable,
            "-m",
            "benchmarks.worker",
            "--engine",
            engine,
            "--case",
            case.name,
            "--answers",
            str(write_end),
        ]
        environ = {name: value for name, value in os.environ.items() if name not in _REMOVED}
        environ |= {
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(
            command + ["--tiny"] * tiny, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, text=True, cwd=ROOT,
            env=environ, pass_fds=(write_end,),
        )  # fmt: skip
        os.close(write_end)
        self.answers = os.fdopen(read_end)
        self.facts = self._answer()

    def sample(self) -> dict:
        """Ask for one sample: {"seconds", "memory_gib"}."""
        with contextlib.suppress(BrokenPipeError):  # reported by `_answer`, with the worker's last words
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()
        self.log.close()

    def _answer(self) -> dict:
        end = time.monotonic() + self.timeout
        readable, _, _ = select.select([self.answers], [], [], max(0.0, end - time.monotonic()))
        line = self.answers.readline() if readable else ""
        if line:
            return json.loads(line)
        self.log.seek(0)
        words = [text.strip() for text in self.log.read().splitlines() if text.strip()]
        reason = words[-1] if words else "no output"
        what = f"no answer within {self.timeout:.0f} s" if not readable else f"ended with status {self.process.wait()}"
        raise WorkerFailed(f"{what}: {reason[:300]}")


def measure(
    case: Case, backend: str, samples: int, tiny: bool = False, timeout: float = 600.0, say=print
) -> list[Measurement]:
    """Measure ours and its peers on one backend, in turns: A B A B.

    Args:
        case, backend: what to measure.
        samples: of each library, after its first call.
        tiny: small sizes.
        timeout: seconds for one build or sample.
        say: called with a line of progress.

    Returns:
        One measurement a library, ours first. A library that fails is left out of the further turns and carries its
        error.
    """
    results, workers = [], {}
    try:
        for engine in (OURS, *case.peers[backend]):
            result = Measurement(case.name, backend, engine)
            results.append(result)
            _guarded(
                result, lambda e=engine, r=result: workers.__setitem__(e, _start(case, backend, e, tiny, timeout, r))
            )
        for turn in range(samples + 1):
            for result in results:
                if result.error is None:
                    _guarded(result, lambda r=result, t=turn: _take(workers[r.engine], r, t == 0, case.steps))
                    say(_progress(result, turn, samples))
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _start(case, backend, engine, tiny, timeout, result):
    worker = Worker(case, backend, engine, tiny, timeout)
    result.parameters = worker.facts["parameters"]
    return worker


def _take(worker, result, is_first, steps):
    answer = worker.sample()
    result.memory_gib = answer["memory_gib"]
    if is_first:
        result.first_call = answer["seconds"]
    else:
        result.seconds.append(answer["seconds"] / steps)


def _guarded(result, work):
    try:
        work()
    except WorkerFailed as error:
        result.error = str(error)


def _progress(result, turn, samples):
    last = result.error or f"{result.seconds[-1] if result.seconds else result.first_call:.3f} s"
    return (
        f"{result.case} {result.backend} {result.engine} {'first call' if turn == 0 else f'{turn}/{samples}'}: {last}"
    )
