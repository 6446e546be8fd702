"""Where compiled programs are kept from one process to the next: JAX's folder, and TensorFlow's, which needs care.

TensorFlow looks after its files less than JAX does: one that is damaged stops the run at every try, and none says for
which processor and under which of XLA's flags it was compiled, which may change its last bits. So each of these and
each version has a folder of its own, a checksum is written beside a file once the stage that made it has ended well,
and a file without a right one is removed before the next stage starts.
"""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

from pipelines.host.paths import cache_folder

_SEAL = ".sha256"


def variables(backend: str) -> dict[str, str]:
    """What a stage's environment says of the cache; {} where none can be had."""
    if backend == "jax":
        return {
            "JAX_COMPILATION_CACHE_DIR": str(cache_folder() / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
    if backend == "tensorflow" and _is_writable(tensorflow_folder()):
        # At level 2 every program that is taken from the cache writes a line of tuning features.
        flags = f"--tf_xla_persistent_cache_directory={tensorflow_folder()}"
        return {"TF_XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {}


def tensorflow_folder() -> Path:
    """The folder for this version of TensorFlow, this processor and these flags of XLA."""
    try:
        version = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:  # a build under another name
        version = "unknown"
    flags = " ".join(sorted(os.environ.get("XLA_FLAGS", "").split()))
    compiled_for = hashlib.sha256(f"{_processor()} {flags}".encode()).hexdigest()[:8]
    return cache_folder() / "tensorflow" / f"{version}-{compiled_for}"


def check(backend: str) -> None:
    """Remove TensorFlow's files that are not as a stage that ended well left them."""
    if backend != "tensorflow":
        return
    for program in tensorflow_folder().glob("*.pb"):
        seal = program.with_name(program.name + _SEAL)
        if not seal.is_file() or seal.read_bytes() != _checksum(program).encode():
            program.unlink(missing_ok=True)
            seal.unlink(missing_ok=True)


def seal(backend: str) -> None:
    """Write down how TensorFlow's files look, after a stage that ended well."""
    if backend != "tensorflow":
        return
    for program in tensorflow_folder().glob("*.pb"):
        path = program.with_name(program.name + _SEAL)
        if not path.exists():
            path.write_text(_checksum(program))


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:  # another run has just removed it
        return ""


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _processor() -> str:
    about = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        # What instructions there are: "flags" on x86, "Features" on ARM.
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        about += platform.processor()
    return about
