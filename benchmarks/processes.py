"""The parent's side: a worker process a library, its environment, its memory limit, its end."""

import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

from benchmarks.case import Case
from pipelines.run.stage_process import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
# None may keep compiled programs between runs, or be told otherwise from outside: the first call is measured too.
_REMOVED = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "TF_XLA_FLAGS")
_LOOK_SECONDS = 0.2


class WorkerFailed(RuntimeError):
    """A worker ended or did not answer; the message holds the end of what it wrote."""


class DoesNotFit(WorkerFailed):
    """A worker took more memory than its case allows."""


def worker_environment(backend: str, cache: str | None) -> dict[str, str]:
    """A worker's environment: for every library the allocator that our stages choose.

    Args:
        cache: folder for compiled programs, of a case that keeps them ("first_call").
    """
    allocator = {name: value for name, value in environment(backend).items() if name.startswith("MALLOC_")}
    ours = {name: value for name, value in os.environ.items() if name not in _REMOVED}
    return {
        **allocator,
        **ours,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **({} if cache is None else {"GEMMA_KERAS_CACHE": cache}),
    }


class Worker:
    """A process that serves samples of one library.

    Args:
        case, backend, library: what it builds.
        tiny: small sizes.
        timeout: seconds that building, or one sample, may take.
        cache: see `worker_environment`.
    """

    def __init__(self, case: Case, backend: str, library: str, tiny: bool, timeout: float, cache: str | None = None):
        self.timeout, self.limit = timeout, case.memory_limit_gib
        self.log = tempfile.TemporaryFile(mode="w+")
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "benchmarks.worker", "--library", library, "--case", case.name]
        self.process = subprocess.Popen(
            [*command, "--answers", str(write_end)] + ["--tiny"] * tiny, stdin=subprocess.PIPE, stdout=self.log,
            stderr=self.log, text=True, cwd=ROOT, env=worker_environment(backend, cache), pass_fds=(write_end,),
        )  # fmt: skip
        os.close(write_end)
        self.answers = os.fdopen(read_end)
        try:
            self.facts = self._answer()
        except WorkerFailed:
            self.close()
            raise

    def sample(self) -> dict:
        """Ask for one sample: {"seconds": of each step, "until_first": its end, compilation included, "memory_gib"}."""
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
        if not self._wait():
            self.process.kill()
            raise WorkerFailed(f"no answer within {self.timeout:.0f} s: {self._last_words()}")
        line = self.answers.readline()
        if line:
            return json.loads(line)
        raise WorkerFailed(f"ended with status {self.process.wait()}: {self._last_words()}")

    def _wait(self) -> bool:
        """Until there is an answer, or the process has ended: True; or the time is up: False."""
        end = time.monotonic() + self.timeout
        while (left := end - time.monotonic()) > 0:
            if select.select([self.answers], [], [], left if self.limit is None else min(left, _LOOK_SECONDS))[0]:
                return True
            if self.limit is not None and resident_gib(self.process.pid) > self.limit:
                self.process.kill()
                raise DoesNotFit(f"does not fit into {self.limit:g} GiB")
        return False

    def _last_words(self) -> str:
        self.log.seek(0)
        words = [text.strip() for text in self.log.read().splitlines() if text.strip()]
        return words[-1][:300] if words else "no output"


def resident_gib(process: int) -> float:
    """Memory that a process holds now, GiB; 0 where the system does not tell, or it has ended."""
    try:
        pages = int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
