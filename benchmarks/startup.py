"""What starting costs, each in a process of its own: CPU seconds and peak memory.

    python -m benchmarks.startup                 measure, and write the table into benchmarks/README.md
    python -m benchmarks.startup --check         measure, and fail where it is over the table by more than a quarter

`tests/packaging/test_startup.py` holds what the same commands load.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks.pages import write_between
from benchmarks.run import machine
from gemma_keras.backend_choice import installed_backends

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
PAGE = FOLDER / "README.md"
BEGIN = "<!-- python -m benchmarks.startup writes from here -->"
END = "<!-- startup to here -->"
SAMPLES = 5
WORSE = 1.25

_COMMAND = "import sys; from pipelines.cli import main; sys.argv[0] = 'gemma-keras'; sys.exit(main(sys.argv[1:]))"
LIGHT = {
    "gemma-keras --help": (_COMMAND, "--help"),
    "gemma-keras list": (_COMMAND, "list"),
    "gemma-keras plan quickstart.yaml": (
        _COMMAND,
        "plan",
        str(ROOT / "workflows" / "quickstart.yaml"),
        "--backend",
        *installed_backends()[:1],
    ),  # fmt: skip
    "import gemma_keras": ("import gemma_keras",),
}
"""What starts without Keras: name → program and its arguments."""

MODEL = "from gemma_keras import GemmaCausalLM"

# Asked at the end, so that asking costs nothing that counts.
_AT_EXIT = """\
import atexit, time
def leave(file):
    seconds = time.process_time()
    import json, sys
    loaded = sorted(name for name, module in sys.modules.items() if module is not None)
    from pipelines.host.process_memory import peak_memory_gib
    with open(file, "w") as out:
        json.dump({"seconds": seconds, "memory_mb": peak_memory_gib() * 1024, "modules": loaded}, out)
atexit.register(leave, %r)
"""


@dataclasses.dataclass(frozen=True)
class Start:
    """What one start cost.

    Attributes:
        seconds: of the processor, user and system, imports of the interpreter included.
        memory_mb: largest resident memory, MiB. modules: what was imported at the end.
    """

    seconds: float
    memory_mb: float
    modules: tuple[str, ...]


def start(program: str, *arguments: str, folder: pathlib.Path, **variables: str) -> Start:
    """Run a program in a fresh process.

    Args:
        program: Python source. arguments: its `sys.argv[1:]`. folder: where it runs, and leaves what it cost.
        variables: of its environment, beside those of this process.

    Raises:
        RuntimeError: it failed.
    """
    answer = folder / "start.json"
    command = [sys.executable, "-c", _AT_EXIT % str(answer) + program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr}")
    found = json.loads(answer.read_text())
    return Start(found["seconds"], found["memory_mb"], tuple(found["modules"]))


def measure(samples: int) -> dict[str, tuple[float, float]]:
    """Name → (median of the CPU seconds, median of the peak MiB), of everything that the table has."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        found = {}
        cases = [(name, program, {}) for name, program in LIGHT.items()]
        for backend in sorted(installed_backends()):
            cases.append((f"{MODEL}, {backend}", (MODEL,), {"KERAS_BACKEND": backend}))
        for name, program, variables in cases:
            start(*program, folder=folder, **variables)  # files are read from the disk once
            runs = [start(*program, folder=folder, **variables) for _ in range(samples)]
            found[name] = (
                statistics.median(run.seconds for run in runs),
                statistics.median(run.memory_mb for run in runs),
            )
        return found


def render(found: dict[str, tuple[float, float]], about: dict) -> str:
    """The table."""
    lines = ["| start | CPU s | peak MB |", "|---|---|---|"]
    lines += [f"| `{name}` | {seconds:.2f} | {memory:.0f} |" for name, (seconds, memory) in found.items()]
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in about["versions"])
    return "\n".join(
        [*lines, "", f"Medians on {about['processor']}, Python {about['python']}, {versions}, {about['date']}."]
    )


def read(text: str) -> dict[str, tuple[float, float]]:
    """The figures of a page's table; empty where there is none."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines() if "| `" in line]
    return {name: (float(seconds), float(memory)) for name, seconds, memory in rows}


def worse(found: dict[str, tuple[float, float]], before: dict[str, tuple[float, float]]) -> list[str]:
    """What costs more than a quarter above the table."""
    lines = []
    for name in found.keys() & before.keys():
        for unit, now, then in zip(("CPU s", "MB"), found[name], before[name], strict=True):
            if now > WORSE * then:
                lines.append(f"{name}: {now:.2f} {unit}, {then:.2f} in the table")
    return sorted(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    options = parser.parse_args(arguments)
    text = PAGE.read_text(encoding="utf-8")
    found = measure(options.samples)
    table = render(found, machine())
    print(table)
    if options.check:
        lines = worse(found, read(text))
        print("\n".join(lines) or "as in the table")
        return int(bool(lines))
    write_between(PAGE, BEGIN, END, [table])
    return 0


if __name__ == "__main__":
    sys.exit(main())
