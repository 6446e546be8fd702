"""Runs one stage, in this process. `python -m pipelines.run.stage_main` is what the runner starts for each stage.

The runner has prepared the output folder with a `stage.json` that says all there is to run; nothing else is passed but
two file descriptors: one whose closing means that the runner is gone, and the run folder's lock.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
import types
from pathlib import Path
from typing import Any

import pydantic

from gemma_keras.program_shapes import counting_shapes
from pipelines.host import imports
from pipelines.host.activity import Activity
from pipelines.host.errors import InternalError, Stopped
from pipelines.host.files import read_json, write_json
from pipelines.host.process_memory import peak_memory_gib
from pipelines.host.visible_text import visible
from pipelines.measures.throughput import Throughput
from pipelines.plugins.sources import UserFunction
from pipelines.run.stage_errors import ERROR_FILE, error_record, known_error
from pipelines.schema.model import Model, ScratchModel
from pipelines.stages import registry
from pipelines.stages.context import StageContext

_MODEL: pydantic.TypeAdapter[str | ScratchModel | None] = pydantic.TypeAdapter(Model)


def execute(output: Path, quiet: bool, own_process: bool = False) -> None:
    """Run the stage that `output/stage.json` describes and write `final.json`, time and memory beside it.

    Args:
        output: the unfinished stage's folder, `RUN/stages/.NAME.partial`.
        quiet: show no progress.
        own_process: nothing but this stage runs here, so that Keras can be loaded without what stages do not use.
    """
    about = read_json(output / "stage.json")
    if about["kind"] not in registry.KINDS:
        raise InternalError(f"no stage kind {about['kind']!r}; known: {', '.join(registry.KINDS)}")
    started = time.perf_counter()
    config = registry.KINDS[about["kind"]].model_validate(about["config"])
    with Activity(f"  {about['name']}", quiet) as activity:
        activity.say(f"loading {about['backend']}")
        context = StageContext(
            name=about["name"], output=output, seed=about["seed"], model=_MODEL.validate_python(about["model"]),
            inputs={stage: Path(os.path.normpath(output.parent / folder)) for stage, folder in about["inputs"].items()},
            base_folder=Path(about["base_folder"]), quiet=quiet, activity=activity,
            user_functions={name: UserFunction(**one) for name, one in about["user_functions"].items()},
        )  # fmt: skip
        with imports.without(imports.FIGURES) if own_process else contextlib.nullcontext():
            function = registry.stage_function(about["kind"])
        context.throughput = Throughput(_product_peak)
        with counting_shapes() as programs:
            final = function(config, context)
    write_json(output / "final.json", {**final, "warnings": context.warnings} if context.warnings else final)
    about["throughput"] = context.throughput.figures()
    about["programs"] = programs
    about["seconds"] = round(time.perf_counter() - started, 3)
    peak, of = peak_memory()
    about |= {"peak_memory_gib": round(peak, 3), "peak_memory_of": of}
    write_json(output / "stage.json", about)


def _product_peak(dtype: str) -> float:
    from gemma_keras.backends.product_peak import product_peak

    return product_peak(dtype)


def peak_memory() -> tuple[float, str]:
    """GiB of the device where the stage's backend had one, else of this process, and which of the two it is."""
    # Not imported: a stage that computed nothing has loaded no backend.
    backends = sys.modules.get("gemma_keras.backends")
    on_device = None if backends is None else backends.peak_device_memory()
    return (peak_memory_gib(), "process") if on_device is None else (on_device / 2**30, "device")


def stop_on_signals() -> None:
    """Make SIGINT and SIGTERM raise `Stopped` in the main thread."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        raise Stopped(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def end_with(lifeline: int) -> None:
    """End this process when the other end of a pipe closes: a runner killed outright leaves no stage working behind
    it."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="runner watch").start()


def main(arguments: list[str] | None = None) -> int:
    """Run a stage for the runner; returns the exit code, after writing `error.json` for errors that the user can
    mend."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.run.stage_main")
    parser.add_argument("output", type=Path)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--lock", type=int, required=True)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    stop_on_signals()
    end_with(options.lifeline)
    os.set_inheritable(options.lifeline, False)
    os.set_inheritable(options.lock, False)
    try:
        execute(options.output, options.quiet, own_process=True)
    except Stopped as stopped:
        return stopped.exit_code
    except Exception as error:
        known = known_error(error, options.output.parent.parent)
        if known is None:
            traceback.print_exc()
            return InternalError.exit_code
        write_error(options.output, error_record(known))
        return known.exit_code
    return 0


def write_error(output: Path, record: dict[str, Any]) -> None:
    """Leave `error.json` for the runner; where not even that can be written, say it on stderr."""
    try:
        write_json(output / ERROR_FILE, record)
    except OSError:
        print(f"error: {visible(record['message'])}", file=sys.stderr)


if __name__ == "__main__":
    exit_code = main()
    if exit_code > 128:  # asked to stop: a backend's own clean-up can take seconds and has nothing to save
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
