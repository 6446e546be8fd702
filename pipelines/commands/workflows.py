"""The commands that work on workflows and runs. None of them imports Keras or datasets; the stages' processes do."""

import argparse
import itertools
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from gemma_keras.files import write_text
from pipelines.commands.memory import memory_lines
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.paths import shipped_workflows
from pipelines.host.process_memory import total_memory
from pipelines.host.run_folder import LOCK_FILE, STAGES, folders_with_stages, stage_folder
from pipelines.host.spelling import did_you_mean
from pipelines.host.visible_text import visible
from pipelines.report import headline
from pipelines.report.records import read_run
from pipelines.run import planning, results, runner
from pipelines.run.memory import shortages
from pipelines.stages import registry
from pipelines.workflow import json_schema
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
    summary = runner.run(
        loaded, folder, options.in_process, options.quiet, say, options.restart, options.verify, options.grace,
        options.cache, frozen_by=folder / LOCK_FILE if options.frozen is True else options.frozen,
    )  # fmt: skip
    if not options.quiet:
        _print("")
        _say_results(folder, summary)
        count, size = results.kept_results(folder)
        if count:
            what = "1 earlier result or state" if count == 1 else f"{count} earlier results and states"
            _print(f"kept:   {what}, {size / 2**20:,.0f} MiB; gemma-keras clean {folder} removes them")
    _print(f"report: {folder / 'report.html'}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """`verify RUN_DIR`: read every file of the finished stages and say which are not as they were written."""
    _need_run(options.run_folder)
    damaged = 0
    for place in folders_with_stages(options.run_folder):
        for folder in sorted(path for path in (place / STAGES).iterdir() if not path.name.startswith(".")):
            found = results.damage(folder, with_digests=True)
            damaged += found is not None
            _print(f"{folder}: {'as it was written' if found is None else found}")
    if damaged:
        raise DataError(f"{options.run_folder}: {damaged} damaged; `run --verify` makes such stages again")
    return 0


def clean(options: argparse.Namespace) -> int:
    """`clean RUN_DIR`: remove earlier results of stages, and the states that longer ones could go on from."""
    _need_run(options.run_folder)
    count, size = results.kept_results(options.run_folder)
    results.clean(options.run_folder)
    _print(f"{options.run_folder}: {count} earlier results and states removed, {size / 2**20:,.0f} MiB")
    return 0


def validate(options: argparse.Namespace) -> int:
    """`validate FILE`: all that can be wrong before anything runs."""
    loaded = _load(options)
    workflow = loaded.workflow
    for note in [*check_data(loaded), *shortages(loaded, workflow.stages, total_memory())]:
        _print(note)
    _print(f"{options.file}: valid, {len(workflow.stages)} stages: {', '.join(workflow.stages)}")
    if workflow.seeds is not None:
        repeated = [name for name in workflow.stages if name not in workflow.stages_run_once()]
        _print(f"once for each seed of {', '.join(map(str, workflow.seeds.values))}: {', '.join(repeated)}")
    return 0


def plan(options: argparse.Namespace) -> int:
    """`plan FILE`: what would run, and why; with `--memory` what it needs of a device's memory."""
    loaded = _load(options)
    if options.memory is not None:
        lines, misfits = memory_lines(loaded, options.memory or None)
        _print("\n".join(lines))
        return ConfigError.exit_code if misfits else 0
    check_data(loaded)
    folder = run_folder(options, loaded)
    planned = planning.plan(loaded.workflow, loaded.base_folder, folder, loaded.user_functions)
    width, actions = max(len(stage.label) for stage in planned), max(4, *(len(_action(stage)) for stage in planned))
    for stage in planned:
        first = f"{_action(stage).ljust(actions)}  {stage.label.ljust(width)}"
        _print(f"{first}  {stage.kind}, {stage.backend}: {_reason(stage)}")
    for problem in dict.fromkeys(one.problem for stage in planned for one in stage.hub.values() if one.problem):
        _print(problem)
    _print(f"{sum(stage.action == 'run' for stage in planned)} of {len(planned)} stages would run, in {folder}")
    return 0


def _action(stage: planning.PlannedStage) -> str:
    return "resume" if stage.resumes else stage.action


def _reason(stage: planning.PlannedStage) -> str:
    if stage.resumes:
        return f"at {stage.unfinished}"
    if stage.action == "take":
        return f"kept from an earlier run; {'; '.join(stage.reasons)}"
    reason = "; ".join(stage.reasons) or "finished"
    return reason if stage.unfinished is None else f"{reason}; unfinished under other settings: {stage.unfinished}"


def report(options: argparse.Namespace) -> int:
    """`report RUN_DIR`: build summary and report again."""
    _need_run(options.run_folder)
    for of_seed in read_run(options.run_folder).parts:
        runner.write_results(of_seed.folder)
    summary = runner.write_results(options.run_folder)
    _say_results(options.run_folder, summary)
    _print(f"report: {options.run_folder / 'report.html'}")
    return 0


def list_workflows(options: argparse.Namespace) -> int:
    """`list`: the shipped workflows, each with the first sentence of its comment."""
    shipped = shipped_workflows()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        _print(f"{name.ljust(width)}  {_description(path)}".rstrip())
    return 0


def schema(options: argparse.Namespace) -> int:
    """`schema`: the JSON schema of a workflow file, for editors."""
    print(json_schema.schema_text(), end="", flush=True)
    return 0


def copy(options: argparse.Namespace) -> int:
    """`copy NAME [DEST]`: a shipped workflow into the user's folder, to be edited, and the schema that it names."""
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
        told = _put_schema(target.parent)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(f"{target}: cannot write ({error.strerror})") from error
    _print("\n".join([str(target), *told, f"Next: gemma-keras run {target}"]))
    return 0


def _put_schema(folder: Path) -> list[str]:
    """The schema into a folder, over one of ours of another version but over no other file; what to say of it."""
    path, text = folder / json_schema.FILE, json_schema.schema_text()
    if path.exists():
        there = path.read_text(encoding="utf-8", errors="replace")
        if there == text:
            return []
        if not json_schema.is_ours(there):
            return [f"{path}: another file, left as it is; `gemma-keras schema` prints what editors read"]
    write_text(path, text)
    return [f"{path}: from it editors complete and explain the keys"]


def run_folder(options: argparse.Namespace, loaded: LoadedWorkflow) -> Path:
    """`--out`, else `runs/<workflow name>` in the current folder."""
    return options.out or Path("runs") / loaded.workflow.name


def _say_results(folder: Path, summary: dict[str, Any]) -> None:
    """The figures of a run, and where the model lies that it was for."""
    with results.naming_damage(folder):
        _print("\n".join([*headline.lines(summary, registry.reports()), ""]))
        place = model_of(folder, summary)
    if place is not None:
        _print(f"model:  {place}")


def model_of(folder: Path, summary: dict[str, Any]) -> Path | None:
    """The model that a run was for: its last policy's, else that of the last stage which leaves one, or None."""
    seed = summary["seed"] if "seeds" in summary else None
    stages = summary["stages"]
    # The policy before its controls, which may have been trained after it.
    policies = [name for name, stage in stages.items() if stage["kind"] in registry.AIMS]
    for name in reversed([*stages, *policies]):
        # Of several seeds the first one's: the figures of the sections of the report are those too.
        for place in (stage_folder(folder, name, seed), stage_folder(folder, name, None)):
            if (place / "model").is_dir():
                return place / "model"
    return None


def _need_run(folder: Path) -> None:
    if not folders_with_stages(folder):
        raise ConfigError(f"{folder}: no run folder; expected the folder that `run` wrote, such as runs/quickstart")


def _load(options: argparse.Namespace) -> LoadedWorkflow:
    return load(options.file, options.set, options.backend, options.seeds, options.seeds_from, options.plugin)


def _description(path: Path) -> str:
    """The first sentence of the comment that a workflow begins with; cut where a terminal has no room."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in comment if line != json_schema.MODELINE)
    # Not at the dot of an abbreviation before a year.
    sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)[0]
    columns = max(40, shutil.get_terminal_size().columns - 30)
    if not sys.stdout.isatty() or len(sentence) <= columns:  # whoever reads from a pipe has room
        return sentence
    return sentence[: columns - 3] + "..."


def _print(text: str) -> None:
    print(visible(text), flush=True)
