"""Runs one stage, in this process. `python -m pipelines.run.stage_main` is what the runner starts for each stage.

The runner has prepared the output folder with a `stage.json` that says all there is to run; nothing else is passed but
two file descriptors: one whose closing means that the runner is gone, and the run folder's lock.
"""

import argparse
import contextlib
import functools
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from gemma_keras.program_shapes import counting_shapes
from pipelines.host import imports, stopping
from pipelines.host.activity import Activity
from pipelines.host.errors import DataError, InternalError, Stopped
from pipelines.host.files import read_json, write_json
from pipelines.host.output import lasting_output
from pipelines.host.process_memory import peak_memory_gib
from pipelines.host.visible_text import visible
from pipelines.measures.throughput import Throughput
from pipelines.plugins.sources import UserFunction
from pipelines.run import keys
from pipelines.run.results import KEPT_FOLDER, record_files
from pipelines.run.stage_errors import ERROR_FILE, error_record, known_error
from pipelines.run.stop_signals import STOPPING, is_to_outlive
from pipelines.schema.model import Model, ScratchModel
from pipelines.stages import registry
from pipelines.stages.context import StageContext
from pipelines.training.kept_parts import KeptParts
from pipelines.training.state import StageState

_MODEL: pydantic.TypeAdapter[str | ScratchModel | None] = pydantic.TypeAdapter(Model)


def execute(output: Path, quiet: bool, own_process: bool = False) -> None:
    """Run the stage that `output/stage.json` describes and write `final.json`, time and memory, and `files.json` last.

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
        state = StageState(output, about["state_key"], about["versions"], **about["state"], warn=context.warn)
        context.state, context.kept_parts = state, _kept_parts(output, about["key_parts"])
        _check_code(about)
        if about["fewer_rows"] is not None:
            context.warn(
                f"out of memory with more: trained with micro_batch_size {about['fewer_rows']}; the batch is as large "
                "as before, its sums are added up in another order"
            )
        context.check_inputs = functools.partial(_check_inputs, about)
        with imports.without(imports.FIGURES) if own_process else contextlib.nullcontext():
            function = registry.stage_function(about["kind"])
        context.throughput = Throughput(_product_peak)
        with counting_shapes() as programs:
            final = function(config, context)
        state.finish()
        for path in _changed(about):
            context.warn(f"{path} was written to after the stage had read it; the result is of what it read")
    write_json(output / "final.json", {**final, "warnings": context.warnings} if context.warnings else final)
    about["throughput"] = context.throughput.figures()
    about["programs"] = programs
    about["states"] = state.figures()
    about["seconds"] = round(state.seconds_before + time.perf_counter() - started, 3)
    peak, of = peak_memory()
    about |= {"peak_memory_gib": round(peak, 3), "peak_memory_of": of}
    write_json(output / "stage.json", about)
    record_files(output)


def _kept_parts(output: Path, parts: Mapping[str, Any]) -> KeptParts:
    identity = {name: parts[name] for name in ("backend", "code", "versions", "machine")}
    return KeptParts(output.parent.parent / KEPT_FOLDER, identity, {**parts["inputs"], **parts["data"]})


def _check_code(about: dict[str, Any]) -> None:
    """The code of this process is that of the key, or the result would stand under another name."""
    if keys.code_digest() != about["key_parts"]["code"]:
        raise DataError(f"{keys.PACKAGE}: the code changed while the run was going. Run the same command again")


def _check_inputs(about: dict[str, Any]) -> None:
    """All that the stage computes with is read, its modules too: what it depends on must not have changed since."""
    keys.code_digest.cache_clear()
    _check_code(about)
    for path in _changed(about):
        raise DataError(f"{path}: changed while the run was going. Run the same command again")


def _changed(about: dict[str, Any]) -> list[str]:
    """Files and folders outside the run that were written to since the runner looked at them."""
    return [one["path"] for one in about["read"].values() if keys.fingerprint(Path(one["path"])) != one["files"]]


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
    """Make stop signals raise `Stopped` in the main thread, at once or between two updates."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        stopping.arrive(number)

    for number in STOPPING:
        if not is_to_outlive(number):
            signal.signal(number, stop)


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
    with lasting_output():
        return _exit_code(options.output, options.quiet)


def _exit_code(output: Path, quiet: bool) -> int:
    try:
        execute(output, quiet, own_process=True)
    except Stopped as stopped:
        return stopped.exit_code
    except Exception as error:
        known = known_error(error, output.parent.parent)
        if known is None:
            traceback.print_exc()
            return InternalError.exit_code
        write_error(output, error_record(known))
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
