"""The commands that work on workflows and runs. None of them imports Keras or datasets; the stages' processes do."""

import argparse
import shutil
from pathlib import Path

from gemma_keras.files import write_text
from pipelines.host.errors import ConfigError
from pipelines.host.paths import shipped_workflows
from pipelines.host.run_folder import folders_with_stages
from pipelines.host.spelling import did_you_mean
from pipelines.report import headline
from pipelines.report.records import read_run
from pipelines.run import planning, runner
from pipelines.stages import registry
from pipelines.workflow.data_checks import check_data
from pipelines.workflow.loading import LoadedWorkflow, load


def run(options: argparse.Namespace) -> int:
    """`run FILE`: run the workflow, or continue it; print where the report is."""
    loaded = _load(options)
    for note in check_data(loaded, with_tables=True):
        if not options.quiet:
            _print(note)
    folder = run_folder(options, loaded)
    say = (lambda line: None) if options.quiet else _print
    summary = runner.run(loaded, folder, in_process=options.in_process, quiet=options.quiet, say=say)
    if not options.quiet:
        _print("\n".join(["", *headline.lines(summary, registry.reports()), ""]))
    _print(f"report: {folder / 'report.html'}")
    return 0


def validate(options: argparse.Namespace) -> int:
    """`validate FILE`: all that can be wrong before anything runs."""
    loaded = _load(options)
    for note in check_data(loaded):
        _print(note)
    workflow = loaded.workflow
    _print(f"{options.file}: valid, {len(workflow.stages)} stages: {', '.join(workflow.stages)}")
    if workflow.seeds is not None:
        repeated = [name for name in workflow.stages if name not in workflow.stages_run_once()]
        _print(f"once for each seed of {', '.join(map(str, workflow.seeds.values))}: {', '.join(repeated)}")
    return 0


def plan(options: argparse.Namespace) -> int:
    """`plan FILE`: what would run, and why."""
    loaded = _load(options)
    check_data(loaded)
    folder = run_folder(options, loaded)
    planned = planning.plan(loaded.workflow, loaded.base_folder, folder)
    width = max(len(stage.label) for stage in planned)
    for stage in planned:
        reason = "; ".join(stage.reasons) or "finished"
        _print(f"{stage.action:4}  {stage.label.ljust(width)}  {stage.kind}, {stage.backend}: {reason}")
    _print(f"{sum(stage.action == 'run' for stage in planned)} of {len(planned)} stages would run, in {folder}")
    return 0


def report(options: argparse.Namespace) -> int:
    """`report RUN_DIR`: build summary and report again."""
    if not folders_with_stages(options.run_folder):
        raise ConfigError(
            f"{options.run_folder}: no run folder; expected the folder that `run` wrote, such as runs/quickstart"
        )
    for of_seed in read_run(options.run_folder).parts:
        runner.write_results(of_seed.folder)
    summary = runner.write_results(options.run_folder)
    _print("\n".join(headline.lines(summary, registry.reports())))
    _print(f"report: {options.run_folder / 'report.html'}")
    return 0


def list_workflows(options: argparse.Namespace) -> int:
    """`list`: the shipped workflows with their first comment."""
    shipped = shipped_workflows()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        _print(f"{name.ljust(width)}  {_description(path)}".rstrip())
    return 0


def copy(options: argparse.Namespace) -> int:
    """`copy NAME [DEST]`: a shipped workflow into the user's folder, to be edited."""
    shipped = shipped_workflows()
    name = options.name.removesuffix(".yaml")
    if name not in shipped:
        raise ConfigError(f"no shipped workflow {name!r}.{did_you_mean(name, shipped)} Known: {', '.join(shipped)}")
    target = options.destination or Path(f"{name}.yaml")
    if target.is_dir():
        target = target / f"{name}.yaml"
    if target.exists() and not options.force:
        raise ConfigError(f"{target}: exists already; name another file, or use --force")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, shipped[name].read_text(encoding="utf-8"))
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(f"{target}: cannot write ({error.strerror})") from error
    _print(f"{target}\nNext: gemma-keras run {target}")
    return 0


def run_folder(options: argparse.Namespace, loaded: LoadedWorkflow) -> Path:
    """`--out`, else `runs/<workflow name>` in the current folder."""
    return options.out or Path("runs") / loaded.workflow.name


def _load(options: argparse.Namespace) -> LoadedWorkflow:
    return load(options.file, options.set, options.backend, options.seeds, options.seeds_from)


def _description(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    line = first.removeprefix("#").strip() if first.startswith("#") else ""
    columns = max(40, shutil.get_terminal_size().columns - 30)
    return line if len(line) <= columns else line[: columns - 3] + "..."


def _print(text: str) -> None:
    print(text, flush=True)
