"""Every key of the JSON files of a run with each of many wrong values, in front of all that reads them: what is damaged
is named and made again or left out, or refused by one line that names the file."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
from hostile_json import damaged, faults, some
from measured_command import faults_of, run_command
from report_fixture import write_run

from pipelines.commands import status, workflows
from pipelines.host import states
from pipelines.host.errors import ConfigError, WorkflowError
from pipelines.report import headline, page, summary
from pipelines.report.records import read_run
from pipelines.run import planning, results, unfinished
from pipelines.schema.gates import gate
from pipelines.stages import registry
from pipelines.training.state import StageState
from pipelines.training.state_files import write_state

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile JSON: every key, 34 wrong values")]

STAGES = ["sft", "reward", "policy", "best", "evaluation"]
PARTS = {
    "stage": "policy_no_kl", "kind": "policy_optimization", "seed": 3, "backend": "jax", "config": {"steps": 5},
    "inputs": {"sft": "a"}, "data": {"data": "d"}, "functions": {}, "code": "c", "versions": {"keras": "3"},
    "machine": {"accelerator": "cpu"},
}  # fmt: skip
OTHER_PARTS = {**PARTS, "seed": 4, "config": {"steps": 6}, "versions": {"keras": "4"}}
LOCK = {"name": "small_run", "seed": 3, "stages": {"sft": {"key": "k"}}, "seeds": {"1": {"reward": {"key": "k"}}}}
PARTIAL = "stages/.policy_no_kl.partial"


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run with finished stages, and one that stopped with two states."""
    run = write_run(tmp_path_factory.mktemp("runs") / "run", STAGES)
    for stage in (run / "stages").iterdir():
        results.record_files(stage)
    (run / "workflow.lock").write_text(json.dumps(LOCK))
    (run / "gate.json").write_text(json.dumps({"stage": "policy", "message": "not started"}))
    for step in (3, 7):
        folder = run / PARTIAL / "state" / str(step)
        folder.mkdir(parents=True)
        record = {"training": {"step": step}, "warnings": ["w"], "lengths": {"metrics.jsonl": None}}
        manifest = {"key": "k", "step": step, "done": step, "of": 10, "unit": "updates", "seconds": 120.0}
        write_state(folder, {}, {**manifest, "versions": {"keras": "3"}, "record": record, "logs": {}})
    (run / PARTIAL / "failures.json").write_text(json.dumps({"step": 7, "count": 1}))
    (run / PARTIAL / "stage.json").write_text(json.dumps({"name": "policy_no_kl", "key_parts": PARTS}))
    return run


@pytest.fixture
def run(whole_run, tmp_path):
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def in_status(run):
    status.lines(run, is_at_work=True)
    status.lines(run, is_at_work=False)


def in_plan(run):
    stage = run / "stages/sft"
    assert planning._reasons(stage, "another key", OTHER_PARTS)
    assert results.kept_result(run, "sft", "another key") is None
    in_status(run)


def in_report(run):
    with results.naming_damage(run):
        figures = summary.build(run, registry.reports())
        headline.lines(figures, registry.reports())
        workflows.model_of(run, figures)


def in_page(run):
    with results.naming_damage(run):
        page.write(run, registry.reports())


def in_gate_file(run):
    page._gate(read_run(run))


def in_gates(run):
    final = json.loads((run / "stages/reward/final.json").read_text())
    assert isinstance(gate("reward.accuracy", ">= 0.5").find(final), float | None)


def in_verify(run):
    """Whatever is no JSON of the same meaning is named."""
    for stage in ("sft", "reward"):
        results.damage(run / "stages" / stage, with_digests=True)
    in_status(run)


def in_settling(run):
    """What was kept under other settings is not dropped silently."""
    done = states.how_far(run / PARTIAL)
    stage = planning.PlannedStage(
        "policy_no_kl", "policy_optimization", "jax", None, Path("stages/policy_no_kl"), {}, "other", "other",
        OTHER_PARTS,
        "run", [], done,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="policy_no_kl: 7 of 10 updates are done, 2:00 of work"):
        unfinished.settle(run, [stage])


def in_failures(run):
    states.count_failure(run / PARTIAL, 3)


def in_resuming(run):
    """A manifest that says anything else than was written is told, and the state before it taken."""
    said = []
    manifest = run / PARTIAL / "state/7/manifest.json"
    saved = StageState(run / PARTIAL, "k", {}, warn=said.append).resume([])
    is_whole = saved.record == {"step": 7}
    written = json.loads((run.parent / "as_written.json").read_text())
    assert is_whole == (_value(manifest) == written)
    assert is_whole or (saved.record == {"step": 3} and "the state state/7 is damaged: manifest.json" in said[0])
    in_status(run)


def _value(file):
    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError):
        return None


# File → who reads it, and the most entries of a list.
READERS = {
    "workflow.lock": (in_status, 8),
    "gate.json": (in_gate_file, 8),
    "stages/sft/stage.json": (in_plan, 8),
    "stages/sft/final.json": (in_report, 8),
    "stages/sft/files.json": (in_verify, 8),
    "stages/reward/stage.json": (in_report, 2),
    "stages/reward/final.json": (in_report, 2),
    "stages/policy/final.json": (in_report, 8),
    "stages/best/final.json": (in_report, 1),
    "stages/evaluation/evaluation.json": (in_report, 1),
    f"{PARTIAL}/stage.json": (in_settling, 8),
    f"{PARTIAL}/failures.json": (in_failures, 8),
    f"{PARTIAL}/state/7/manifest.json": (in_resuming, 8),
}
SLOWLY = pytest.param("others", marks=pytest.mark.slow)


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("part", ["few", SLOWLY])
def test_a_wrong_value_anywhere(run, file, part, record_property):
    read, entries = READERS[file]
    text = (run / file).read_text()
    (run.parent / "as_written.json").write_text(text)
    cases = damaged(text, entries)
    if read is in_report:  # which takes a hundred times as long as others: each seventh
        cases = itertools.islice(cases, None, None, 7)
    count, found = faults(some(cases, part), _writing(run, file, read), WorkflowError, Path(file).name)
    record_property("cases", count)
    assert not found, f"{len(found)} of {count}:\n" + "\n".join(found)


def _writing(run, file, read):
    def write_and_read(text):
        (run / file).write_text(text)
        read(run)

    return write_and_read


def test_a_figure_for_a_gate(run, record_property):
    text = (run / "stages/reward/final.json").read_text()
    cases = [case for case in damaged(text, 1) if case[0].startswith("accuracy:") and _parses(case[1])]
    count, found = faults(iter(cases), _writing(run, "stages/reward/final.json", in_gates), WorkflowError, "")
    record_property("cases", count)
    assert count > 25 and not found, "\n".join(found)


def _parses(text):
    try:
        return bool(json.loads(text))
    except (ValueError, RecursionError):
        return False


@pytest.mark.slow
def test_the_page_too(run, record_property):
    """It takes longer than the summary: each 601st damage."""
    count, found = 0, []
    for file in ("stages/reward/final.json", "stages/evaluation/evaluation.json", "stages/policy/stage.json"):
        text = (run / file).read_text()
        cases = iter([*damaged(text, 1)][::601])
        some_count, some_found = faults(cases, _writing(run, file, in_page), WorkflowError, Path(file).name)
        count, found = count + some_count, found + some_found
        (run / file).write_text(text)
    record_property("cases", count)
    assert not found, "\n".join(found)


def test_a_state_that_names_other_files_as_its_logs(run):
    """Going on cuts the logs to their lengths; no other file."""
    kept = run / "kept.txt"
    kept.write_text("mine")
    folder = run / PARTIAL / "state/7"
    manifest = states.read_manifest(folder)
    manifest["record"]["lengths"] = {"../../kept.txt": 0}
    states.write_manifest(folder, manifest)
    said = []
    assert StageState(run / PARTIAL, "k", {}, warn=said.append).resume([]).record == {"step": 3}
    assert "manifest.json speaks of '../../kept.txt', which is no log" in said[0] and "metrics.jsonl" in states.LOGS
    assert kept.read_text() == "mine"


def test_a_stage_name_that_leads_elsewhere(run):
    (run / "workflow.lock").write_text(json.dumps({"stages": {"../../etc": {}}}))
    with pytest.raises(ConfigError, match="no run folder"):
        status.lines(run, is_at_work=False)


COMMANDS = {
    "workflow.lock": "status", "stages/sft/stage.json": "report", "stages/sft/files.json": "verify",
    "stages/evaluation/evaluation.json": "report", f"{PARTIAL}/state/7/manifest.json": "status",
}  # fmt: skip


@pytest.mark.parametrize("part", ["few", SLOWLY])
def test_through_the_command(run, part, record_property):
    """Of each file four damages, far from one another, in a process each."""
    commands = {"status"} if part == "few" else {*COMMANDS.values()}
    usual = {command: run_command(command, str(run)) for command in commands}
    assert all(ended.code == 0 for ended in usual.values()), usual
    count, found = 0, []
    for position, (file, command) in enumerate(COMMANDS.items()):
        text = (run / file).read_text()
        cases = list(damaged(text, 2))
        for number, (label, new) in enumerate(cases[5 * position + 3 :: len(cases) // 4][:4]):
            if (position == number == 0) != (part == "few"):
                continue
            (run / file).write_text(new)
            name = str(run) if command == "verify" else Path(file).name  # `verify` tells the file on stdout
            found += faults_of(f"{file}: {label}", run_command(command, str(run)), usual[command], name)
            count += 1
        (run / file).write_text(text)
    record_property("cases", count)
    assert not found, "\n".join(found)
