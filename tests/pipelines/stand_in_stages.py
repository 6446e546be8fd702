"""The command line with stand-in stages: a program that tests start, so that the runner is tried with real processes but no model.

`python stand_in_stages.py cli ARGUMENTS...` is `gemma-keras ARGUMENTS...`; its stages run through `python stand_in_stages.py stage ...`.
A stage writes a model folder that names its inputs' digests, and does what the environment's STAND_IN (JSON: stage → action) says.
"""

import errno
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from pipelines import cli, report, stage_main, stage_process
from pipelines.errors import ConfigError, DataError

MARKER = "started"


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "config.json").read_bytes()).hexdigest()


def run(config, context):
    action = json.loads(os.environ.get("STAND_IN", "{}")).get(context.name, "")
    (context.output / "model").mkdir()
    (context.output / MARKER).write_text(f"{os.getpid()}\n")
    if action == "wait":
        while True:
            time.sleep(0.02)
    if action == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (context.output / "deaf").touch()
        while True:
            time.sleep(0.02)
    if action == "bug":
        raise RuntimeError("a bug of ours")
    if action == "data":
        raise DataError("rows.jsonl:3: bad JSON")
    if action == "config":
        raise ConfigError("no such thing")
    if action == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if action == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "big":
        (context.output / "big").write_bytes(b"0" * 2**20)
    for step in context.progress(3, "training"):
        context.log(step, loss=float("nan") if step == 0 else 1.0 / step)
    inputs = {name: digest(folder) for name, folder in sorted(context.inputs.items())}
    settings = config.model_dump(mode="json")
    settings.pop("data", None)
    text = json.dumps({"stage": context.name, "seed": context.seed, "inputs": inputs, "config": settings})
    (context.output / "model" / "config.json").write_text(text)
    return {"loss": 0.5, "backend": os.environ["KERAS_BACKEND"], "quiet": context.quiet}


def patch() -> None:
    """Put the stand-ins in the place of the stages, in this process and in those that it starts."""
    real_command = stage_process.command

    def command(*arguments):
        line = real_command(*arguments)
        return [sys.executable, __file__, "stage", *line[line.index("pipelines.stage_main") + 1 :]]

    stage_process.command = command
    stage_main.stage_function = lambda kind: run
    report.write = lambda folder: Path(folder, "report.html").write_text("<html></html>")


if __name__ == "__main__":
    patch()
    program = {"cli": cli.main, "stage": stage_main.main}[sys.argv[1]]
    sys.exit(program(sys.argv[2:]))
