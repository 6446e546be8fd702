"""Measure gemma_keras against KerasHub, transformers and TRL: `make bench`, or

    python -m benchmarks.run --only train:jax generate_16 --samples 5

Without `--only` everything is measured, about half an hour on 2 cores. Results go to benchmarks/results.json as they
come, and as a table into benchmarks/README.md; what is not measured again stays.
"""

import argparse
import datetime
import fnmatch
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

from benchmarks import table
from benchmarks.cases import BACKENDS, CASES, Case
from benchmarks.processes import measure

FOLDER = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("keras", "jax", "tensorflow", "torch", "keras-hub", "transformers", "trl")


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for; 0 when every library gave figures, else 1."""
    options = _parser().parse_args(arguments)
    options.write = options.write and not options.tiny
    wanted = [(case, backend) for case in CASES for backend in case.peers if _is_wanted(case, backend, options)]
    if not wanted:
        print(
            f"--only {' '.join(options.only)} fits nothing; cases: {', '.join(case.name for case in CASES)}",
            file=sys.stderr,
        )
        return 2
    if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        print(f"Warning: the machine is busy (load {os.getloadavg()[0]:.1f}); times will be too long", file=sys.stderr)
    results_file, failed = options.folder / "results.json", False
    for case, backend in wanted:
        measured = measure(case, backend, options.samples, options.tiny, options.timeout)
        for item in measured:
            failed |= item.error is not None
            if item.error:
                print(f"{case.name} {backend} {item.engine} failed: {item.error}", file=sys.stderr)
        if options.write:
            results = table.merge(table.read(results_file), measured, machine())
            results_file.write_text(json.dumps(results, indent=1) + "\n")
            table.write(options.folder / "README.md", table.render(results))
        elif not options.tiny:
            print(table.render(table.merge({"runs": [], "machine": {}}, measured, machine())))
    return int(failed)


def machine() -> dict:
    """What the figures depend on: processor, memory, versions, date."""
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "processor": processor,
        "memory_gib": memory,
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "date": datetime.date.today().isoformat(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a backend that is not measured need not be here
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="CASE[:BACKEND]", help="cases, with * for any; default all"
    )
    parser.add_argument(
        "--samples", type=int, default=5, help="samples of each library after its first call; default 5"
    )
    parser.add_argument(
        "--timeout", type=float, default=900.0, help="seconds that one build or sample may take; default 900"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes: tries the benchmark itself; writes nothing")
    parser.add_argument(
        "--folder", type=pathlib.Path, default=FOLDER, help="where results.json and README.md are; default here"
    )
    parser.add_argument("--no-write", dest="write", action="store_false", help="print the table instead")
    parser.set_defaults(write=True)
    return parser


def _is_wanted(case: Case, backend: str, options) -> bool:
    patterns = [pattern if ":" in pattern else f"{pattern}:*" for pattern in options.only]
    return any(fnmatch.fnmatch(f"{case.name}:{backend}", pattern) for pattern in patterns) and backend in BACKENDS


if __name__ == "__main__":
    sys.exit(main())
