"""A stage in a process of its own: its backend, its memory, its end. Also the same in this process, for debugging."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from gemma_keras import backend_choice
from pipelines.host.errors import DiskError, InternalError, MemoryShortage, Stopped
from pipelines.host.files import read_json
from pipelines.host.paths import PACKAGE
from pipelines.host.process_memory import kills_for_memory
from pipelines.host.run_folder import run_of
from pipelines.run import compile_cache, stage_main
from pipelines.run.stage_errors import ERROR_FILE, from_record, known_error
from pipelines.run.stop_signals import STOPPING, StopSignals


def command(output: Path, lifeline: int, lock: int, quiet: bool) -> list[str]:
    """The command line of a stage's process. `-P` keeps the current folder's files from being imported."""
    arguments = [
        sys.executable,
        "-P",
        "-m",
        "pipelines.run.stage_main",
        str(output),
        "--lifeline",
        str(lifeline),
        "--lock",
        str(lock),
    ]
    return [*arguments, "--quiet"] if quiet else arguments


def run_in_process(output: Path, backend: str, signals: StopSignals, quiet: bool) -> None:
    """Run a prepared stage here. Keras can have one backend a process, so all stages must share it.

    Raises:
        WorkflowError: the user can mend it. Stopped: a signal came. Any other: a bug, as it was raised.
    """
    set_environment(backend)
    compile_cache.check(backend)
    try:
        backend_choice.set_backend(backend)
        with signals.raising():
            stage_main.execute(output, quiet)
    except Exception as error:
        known = known_error(error, output.parent.parent)
        if known is None or known is error:
            raise
        raise known from error
    compile_cache.seal(backend)


def run_in_subprocess(output: Path, backend: str, signals: StopSignals, quiet: bool, lock: int) -> None:
    """Run a prepared stage in a new process and wait for it.

    Raises:
        WorkflowError: what the stage left in `error.json`. InternalError: it failed otherwise; its traceback is on
            stderr.
        Stopped: a signal came, here or there.
    """
    compile_cache.check(backend)
    kills_before = kills_for_memory()
    lifeline, our_end = os.pipe()
    try:
        child = subprocess.Popen(
            command(output, lifeline, lock, quiet), env=environment(backend), pass_fds=(lifeline, lock),
            stdin=subprocess.DEVNULL,
            # A group of its own: Ctrl-C reaches the runner alone, which passes it on once.
            process_group=0,
        )  # fmt: skip
        os.close(lifeline)
        lifeline = -1
        code = signals.wait_for(child)
    finally:
        if lifeline >= 0:
            os.close(lifeline)
        os.close(our_end)
    signals.check()
    if code == -signal.SIGKILL and kills_for_memory() > kills_before:
        raise MemoryShortage(f"the system killed {_label(output)} as memory ran out. {_LESS}")
    if code:
        raise_for(code, output)
    compile_cache.seal(backend)


_LESS = "Lower its micro_batch_size or max_length, or set remat: block, then run again"


def _label(output: Path) -> str:
    name, (_, seed) = output.name.removeprefix(".").removesuffix(".partial"), run_of(output.parent.parent)
    return f"stage {name!r}" if seed is None else f"stage {name!r} of seed {seed}"


def raise_for(code: int, output: Path) -> None:
    """Raise what a stage's exit code, and the `error.json` that it may have left, mean."""
    stage = _label(output)
    if (output / ERROR_FILE).is_file():
        raise from_record(read_json(output / ERROR_FILE))
    if code - 128 in STOPPING:
        raise Stopped(code - 128)
    if code == DiskError.exit_code:
        raise DiskError(
            f"{output.parent.parent}: cannot write. Finished stages are kept; make room and run the same command again"
        )
    if code == -signal.SIGKILL:
        raise InternalError(f"{stage} was killed (signal 9), most likely because memory ran out. {_LESS}")
    if code < 0:
        raise InternalError(f"{stage} died of signal {-code} ({signal.Signals(-code).name})")
    raise InternalError(f"{stage} failed with a bug (traceback above, exit code {code}); finished stages are kept")


def set_environment(backend: str) -> None:
    """`environment` for this process, before Keras is imported; what is set stands."""
    for name, value in environment(backend).items():
        os.environ.setdefault(name, value)


def environment(backend: str) -> dict[str, str]:
    """Environment of a stage: its backend, shared compile cache, quiet logs, repeatable arithmetic. What the user has
    set stands."""
    defaults = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_DETERMINISTIC_OPS": "1",
        "TF_CUDNN_DETERMINISTIC": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        # glibc gives large arrays back to the system at once and asks for fresh, zeroed pages at the next step: a third
        # of a training step of Gemma 3 270M on a CPU. Keep them.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
        **compile_cache.variables(backend),
    }
    if Path("/dev/nvidia0").exists():  # the flag is refused by builds without a GPU
        defaults["XLA_FLAGS"] = "--xla_gpu_deterministic_ops=true"
        # JAX takes three quarters of a GPU and fails beyond them; a stage has it alone, and may be planned for 85 %.
        defaults["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.92"
    python_path = [str(PACKAGE.parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **defaults,
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(python_path)),
    }
