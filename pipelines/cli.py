"""The command `gemma-keras`. Starts at once: Keras and datasets are imported by stages and by the commands that build a
model."""

import argparse
import importlib.metadata
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import memory
from pipelines.commands import workflows as commands
from pipelines.commands.explain import explain
from pipelines.commands.model_options import add_model_commands
from pipelines.commands.show import show
from pipelines.commands.status import status
from pipelines.host.errors import InternalError, Stopped, WorkflowError
from pipelines.host.output import lasting_output
from pipelines.host.visible_text import visible
from pipelines.run.stage_errors import known_error
from pipelines.run.stop_signals import GRACE_SECONDS

EXIT_CODES = "exit codes: 0 done, 2 configuration, 3 a gate, 65 data, 70 internal, 74 disk, 129, 130 and 143 stopped"

FIRST_STEPS = """\
first steps:
  gemma-keras copy quickstart             a workflow of your own to edit; `list` shows them all
  gemma-keras validate quickstart.yaml    what is wrong with it, before anything runs
  gemma-keras explain lora.rank           what a key is; also of an algorithm, or of a kind of stage
  gemma-keras show quickstart.yaml sft    the first rows that the stage sft will learn from
  gemma-keras run quickstart.yaml         run it; the same command continues it
  gemma-keras chat runs/quickstart/stages/policy
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: default `sys.argv[1:]`.

    Returns:
        The exit code: 0 done, 2 configuration, 3 a gate that is not passed, 65 data, 70 internal, 74 disk, 129, 130
        and 143 stopped by a signal.
    """
    with lasting_output():
        options = _parser().parse_args(arguments)
        try:
            return options.function(options)
        except Stopped as stopped:
            return stopped.exit_code
        except KeyboardInterrupt:
            return 130
        except WorkflowError as error:
            return _show(error)
        except Exception as error:
            known = known_error(error, Path.cwd())
            if known is not None:
                return _show(known)
            traceback.print_exc()
            return InternalError.exit_code


def _show(error: WorkflowError) -> int:
    for line in visible(str(error)).split("\n"):
        print(f"error: {line}", file=sys.stderr)
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gemma-keras",
        description="Gemma post-training from one YAML file.",
        epilog=f"{FIRST_STEPS}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function, text in (
        ("run", commands.run, "run a workflow, or continue it where it stopped"),
        ("validate", commands.validate, "check a workflow and its data; runs nothing"),
        ("plan", commands.plan, "show what would run, and why"),
    ):
        command = subparsers.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
        command.set_defaults(function=function)
        command.add_argument("file", type=Path, metavar="FILE", help="workflow (YAML)")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override, e.g. stages.sft.learning_rate=1e-5",
        )
        _add_plugin(command)
        command.add_argument("--backend", default=None, help="jax, tensorflow or torch, for all stages")
        command.add_argument("--seeds", default=None, metavar="N,N,...", help="run under several seeds, e.g. 17,18,19")
        command.add_argument(
            "--seeds-from", default=None, metavar="STAGE", help="first stage that runs once a seed, default all stages"
        )
        if name != "validate":
            command.add_argument("--out", type=Path, default=None, metavar="DIR", help="run folder, default runs/NAME")
        if name == "plan":
            command.add_argument(
                "--memory", nargs="?", type=memory.gib, const=0.0, default=None, metavar="GIB",
                help="in place of that, GiB that each stage needs of a device, and which keys to change; with a "
                "device's GiB, exit code 2 where a stage does not fit with 15 %% to spare",
            )  # fmt: skip
        if name == "run":
            _add_run_options(command)
    _add_show(subparsers)
    _add_run_folders(subparsers)
    command = subparsers.add_parser("list", help="list the shipped workflows")
    command.set_defaults(function=commands.list_workflows)
    command = subparsers.add_parser("copy", help="copy a shipped workflow into your folder")
    command.set_defaults(function=commands.copy)
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "destination", type=Path, nargs="?", metavar="DEST", help="file or folder, default NAME.yaml here"
    )
    command.add_argument("--force", action="store_true", help="replace an existing file")
    text = "print the JSON schema of a workflow file, for editors"
    command = subparsers.add_parser("schema", help=text, description=text)
    command.set_defaults(function=commands.schema)
    _add_explain(subparsers)
    add_model_commands(subparsers)
    return parser


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--in-process", action="store_true", help="run the stages in this process, for debugging")
    command.add_argument("--quiet", action="store_true", help="no progress")
    command.add_argument(
        "--grace", type=float, default=GRACE_SECONDS, metavar="SECONDS",
        help="for a stage to end its update and save after a stop signal, default 30; then it is killed",
    )  # fmt: skip
    command.add_argument(
        "--restart", action="append", default=[], metavar="STAGE",
        help="start this stage over where an earlier run of it is unfinished",
    )  # fmt: skip
    command.add_argument(
        "--cache", type=Path, default=None, metavar="DIR",
        help="share finished stages with other runs in this folder, by hard links",
    )  # fmt: skip
    command.add_argument(
        "--frozen", type=Path, nargs="?", const=True, default=None, metavar="LOCK",
        help="fail, and start nothing, where anything differs from workflow.lock of the run folder, or from another "
        "run's LOCK",
    )  # fmt: skip
    command.add_argument(
        "--verify", action="store_true", help="read every file of the finished stages; make damaged ones again"
    )


def _add_run_folders(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands on what a run left."""
    command = subparsers.add_parser("report", help="build a run's summary and report again")
    command.set_defaults(function=commands.report)
    command.add_argument("run_folder", type=Path, metavar="RUN_DIR")
    for name, function, text in (
        ("status", status, "how far a run is"),
        ("verify", commands.verify, "check that a run's files are as they were written"),
        ("clean", commands.clean, "remove earlier results that a run keeps"),
    ):
        command = subparsers.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
        command.set_defaults(function=function)
        command.add_argument(
            "run_folder", type=Path, metavar="RUN_DIR", help="what `run` wrote, such as runs/quickstart"
        )


def _add_show(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "show rows of a stage as it will encode them"
    command = subparsers.add_parser("show", help=text, description=text, epilog=EXIT_CODES)
    command.set_defaults(function=show)
    command.add_argument("file", type=Path, metavar="FILE", help="workflow (YAML)")
    command.add_argument("stage", metavar="STAGE", help="name of a stage in it")
    command.add_argument("--rows", type=int, default=3, metavar="N", help="rows shown, default 3")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, as of `run`")
    _add_plugin(command)
    command.add_argument("--out", type=Path, default=None, metavar="DIR", help="run folder, default runs/NAME")


def _add_explain(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "explain a key, an algorithm or a kind of stage; alone, list them"
    command = subparsers.add_parser(
        "explain", help=text, description=text, epilog=EXIT_CODES, usage="gemma-keras explain [-h] [[FILE] WORD]"
    )
    command.set_defaults(function=explain)
    command.add_argument(
        "words", nargs="*", metavar="WORD",
        help="such as learning_rate, lora.rank, stages.sft.learning_rate; a workflow before it shows its values there",
    )  # fmt: skip


def _add_plugin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plugin", action="append", type=Path, default=[], metavar="FILE.py",
        help="Python file with reward functions of your own, which stages then name; may be repeated",
    )  # fmt: skip


def _version() -> str:
    try:
        return f"gemma-keras {importlib.metadata.version('gemma-keras')}"
    except importlib.metadata.PackageNotFoundError:
        return "gemma-keras (not installed)"


if __name__ == "__main__":
    sys.exit(main())
