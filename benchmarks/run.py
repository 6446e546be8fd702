"""Measure gemma_keras against KerasHub, transformers, TRL and llama.cpp: `make bench`, or

    python -m benchmarks.run --only train:jax generate_16 --samples 5
    python -m benchmarks.run --resume                # what a run of this revision that was interrupted has left
    python -m benchmarks.run --quick                 # a few cases in ten minutes, as a table on the terminal

Without `--only` everything is measured, about an hour and a half on 2 cores. Results go to benchmarks/results/, a file
for each kind of machine, as they come, and as tables into benchmarks/README.md; what is not measured again stays.
"""

import argparse
import datetime
import fnmatch
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

from benchmarks import peak, real_model, table
from benchmarks.case import BACKENDS, Case
from benchmarks.cases import CASES
from benchmarks.measuring import measure

FOLDER = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("keras", "jax", "tensorflow", "torch", "keras-hub", "transformers", "trl", "llama-cpp-python")
SAMPLES, QUICK_SAMPLES = 3, 2


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for; 0 when every library gave figures or does not fit, else 1."""
    options = _parser().parse_args(arguments)
    options.write = options.write and not options.tiny and not options.quick
    wanted = [(case, backend) for case in CASES for backend in case.libraries if _is_wanted(case, backend, options)]
    if not wanted:
        names = ", ".join(case.name for case in CASES)
        print(f"--only {' '.join(options.only)} fits nothing; cases: {names}", file=sys.stderr)
        return 2
    if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        print(f"Warning: the machine is busy (load {os.getloadavg()[0]:.1f}); times will be too long", file=sys.stderr)
    wanted = [each for each in wanted if _can_run(each[0], options)]
    about, measured, failed = machine(), {"runs": [], "machine": {}}, False
    results_file = options.folder / "results" / table.file_name(about)
    if options.resume:
        done = {
            (run["case"], run["backend"])
            for run in table.read(results_file)["runs"]
            if run.get("revision") == about["revision"]
        }
        wanted = [(case, backend) for case, backend in wanted if (case.name, backend) not in done]
    about["peak"] = peak.measure(sorted({backend for _, backend in wanted}), options.tiny)
    samples = options.samples or (QUICK_SAMPLES if options.quick else SAMPLES)
    for case, backend in wanted:
        new = measure(case, backend, samples, options.tiny, options.timeout)
        for item in new:
            if item.error:
                failed |= not item.does_not_fit
                print(f"{case.name} {backend} {item.library}: {item.error}", file=sys.stderr)
        measured = table.merge(measured, new, about)
        if options.write:
            stored = table.read(results_file)
            # A later run of one backend alone keeps the others' peaks.
            about = {**about, "peak": {**stored["machine"].get("peak", {}), **about["peak"]}}
            results = table.merge(stored, new, about)
            results_file.parent.mkdir(exist_ok=True)
            results_file.write_text(json.dumps(results, indent=1) + "\n")
            table.write(options.folder / "README.md", table.render(table.read_all(results_file.parent)))
    if measured["runs"] and not options.write and not options.tiny:
        print(table.render([measured]))
    return int(failed)


def machine() -> dict:
    """What the figures depend on: processor, memory, versions, date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": memory,
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "date": datetime.date.today().isoformat(),
        "revision": _revision(),
    }


def _processor(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """The name that the processor gives itself, and whether it has AMX: cloud machines of several generations share a
    name, and with AMX a product in bfloat16 takes a sixth of one in float32."""
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    about = {name.strip(): value.strip() for name, value in fields.items()}
    name = about.get("model name") or platform.processor() or platform.machine()
    return f"{name} with AMX" if "amx_bf16" in about.get("flags", "").split() else name


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a backend that is not measured need not be here
        return None


def _revision() -> str | None:
    command = ["git", "-C", str(FOLDER), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no checkout
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="CASE[:BACKEND]", help="cases, with * for any; default all"
    )
    parser.add_argument(
        "--samples",
        type=int,
        help=f"samples of each library after its first call; default {SAMPLES}, with --quick {QUICK_SAMPLES}",
    )
    parser.add_argument(
        "--timeout", type=float, default=900.0, help="seconds that one build or sample may take; default 900"
    )
    parser.add_argument("--quick", action="store_true", help="a few cases, as a table on the terminal; writes nothing")
    parser.add_argument("--resume", action="store_true", help="leave out what was measured here at this revision")
    parser.add_argument("--tiny", action="store_true", help="small sizes: tries the benchmark itself; writes nothing")
    parser.add_argument(
        "--folder", type=pathlib.Path, default=FOLDER, help="where results/ and README.md are; default here"
    )
    parser.add_argument("--no-write", dest="write", action="store_false", help="print the table instead")
    parser.set_defaults(write=True)
    return parser


def _is_wanted(case: Case, backend: str, options) -> bool:
    patterns = [pattern if ":" in pattern else f"{pattern}:*" for pattern in options.only]
    is_named = any(fnmatch.fnmatch(f"{case.name}:{backend}", pattern) for pattern in patterns)
    return is_named and backend in BACKENDS and (case.quick or not options.quick)


def _can_run(case: Case, options) -> bool:
    if not case.real_model or options.tiny or real_model.is_here():
        return True
    print(f"{case.name}: left out, {real_model.HINT}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
