"""One library in one process: builds the model of a case, then runs a sample whenever the parent asks.

    python -m benchmarks.worker --library keras_hub@xla --case train --answers 3

The backend is read from KERAS_BACKEND, set by the parent.
"""

import argparse
import importlib
import os

from benchmarks.case import engine, tiny
from benchmarks.cases import case_named
from benchmarks.stopwatch import Stopwatch


def main() -> None:
    """Read the arguments and serve samples until the parent stops asking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True, help="a file of benchmarks/engines, perhaps with a variant")
    parser.add_argument("--case", required=True)
    parser.add_argument("--answers", type=int, required=True, help="file descriptor for the answers")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the benchmark itself")
    arguments = parser.parse_args()
    case = case_named(arguments.case)
    if case.kind == "first_call":
        from pipelines.run.stage_process import set_environment

        set_environment(os.environ["KERAS_BACKEND"])  # a stage's, with its cache of compiled programs
    case = (tiny(case) if arguments.tiny else case).of(arguments.library)
    stopwatch = Stopwatch(arguments.answers)
    importlib.import_module(f"benchmarks.engines.{engine(arguments.library)}_engine").serve(case, stopwatch)


def serve_function(sample, stopwatch: Stopwatch, **facts) -> None:
    """Call `sample()` once a "go"."""
    stopwatch.ready(**facts)
    while stopwatch.wait():
        sample()
        stopwatch.report()


if __name__ == "__main__":
    main()
