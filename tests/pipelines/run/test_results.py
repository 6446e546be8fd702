"""Finished stages that are not as they were written, and results that another one took the place of."""

import json
import shutil

import pytest

from pipelines import cli
from pipelines.run import results, runner
from pipelines.workflow import loading as workflow

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("finished results: damage, kills, settings there and back")]


@pytest.fixture
def start(workflow_file, stand_ins, tmp_path):
    """A function that loads and runs the workflow; returns the stages that ran, and what was said."""

    def start(*overrides, **options):
        said = []
        loaded = workflow.load(workflow_file, overrides)
        runner.run(loaded, tmp_path / "run", in_process=True, quiet=True, say=said.append, **options)
        return [line for line in said if "because" in line], said

    return start


@pytest.fixture
def stage(tmp_path):
    return lambda name: tmp_path / "run/stages" / name


def flip(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_all_files_but_itself_are_listed(start, stage):
    start()
    files = json.loads((stage("sft") / "files.json").read_text())
    found = {path.relative_to(stage("sft")).as_posix() for path in stage("sft").rglob("*") if path.is_file()}
    assert files.keys() == found - {"files.json"} > {"model/config.json", "stage.json", "final.json"}
    assert all(results.damage(stage(name), with_digests=True) is None for name in ("base", "sft", "evaluation"))


@pytest.mark.parametrize("name", ["model/config.json", "metrics.jsonl", "final.json", "stage.json", "files.json"])
@pytest.mark.parametrize("fault", ["cut", "deleted", "no object"])
def test_a_stage_that_lost_a_file_runs_again_and_its_readers_do_not(start, stage, name, fault):
    start()
    before = (stage("base") / "model/config.json").read_bytes()
    path = stage("base") / name
    if fault == "deleted":
        path.unlink()
    else:
        path.write_text('"x"' if fault == "no object" else path.read_text()[:-3])
    (line,), _ = start()
    assert "base" in line and (path.name in line or "stage.json or final.json" in line)
    assert (stage("base") / "model/config.json").read_bytes() == before
    assert start()[0] == []


def test_a_flipped_bit_is_found_by_who_reads_it(start, stage):
    """At the start of every run only sizes are compared."""
    start()
    flip(stage("base") / "model/config.json")
    assert start()[0] == []
    again, said = start("stages.sft.learning_rate=1e-5")
    assert [line.split(" (")[0].rpartition("] ")[2] for line in again] == ["base", "sft", "evaluation"]
    assert "stages/base: model/config.json has other contents than were written" in again[0]
    assert results.damage(stage("base"), with_digests=True) is None
    kept = {path.name.partition("-")[0] for path in (stage("base").parents[1] / "kept").iterdir()}
    assert kept == {"sft", "evaluation"}  # nothing damaged


def test_verify_reads_all_files(start, stage, tmp_path, capsys):
    start()
    assert cli.main(["verify", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("as it was written") == 4
    flip(stage("other") / "metrics.jsonl")
    assert cli.main(["verify", str(tmp_path / "run")]) == 65
    output = capsys.readouterr()
    assert f"{stage('other')}: metrics.jsonl has other contents than were written" in output.out
    assert "1 damaged; `run --verify` makes such stages again" in output.err
    (line,), _ = start(verify=True)
    assert "other" in line
    assert cli.main(["verify", str(tmp_path / "run")]) == 0
    assert cli.main(["verify", str(tmp_path)]) == 2


def test_clean_removes_what_is_kept(start, stage, tmp_path, capsys):
    start()
    start("stages.sft.learning_rate=1e-5")
    count, size = results.kept_results(tmp_path / "run")
    assert count == 2 and size > 1000
    assert cli.main(["clean", str(tmp_path / "run")]) == 0
    assert "2 earlier results and states removed" in capsys.readouterr().out
    assert results.kept_results(tmp_path / "run") == (0, 0)
    assert len(start()[0]) == 2


def test_a_kept_result_that_was_damaged_is_not_taken_back(start, stage, tmp_path):
    start()
    start("stages.sft.learning_rate=1e-5")
    (kept,) = (tmp_path / "run/kept").glob("sft-*")
    (kept / "model/config.json").unlink()
    again, _ = start()
    assert len(again) == 1 and "sft" in again[0]


@pytest.mark.parametrize("fault", ["before the old one moved", "after the old one moved"])
def test_a_stage_whose_runner_was_killed_before_it_got_its_name_is_finished(start, stage, tmp_path, fault, monkeypatch):
    start()
    expected = (stage("sft") / "model/config.json").read_bytes()

    def killed(run_folder, finished, target):
        if fault == "after the old one moved" and target.exists():
            results._keep(run_folder, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            start("stages.sft.learning_rate=1e-5")
    again, _ = start("stages.sft.learning_rate=1e-5")
    assert len(again) == 1 and "evaluation" in again[0]
    assert (stage("sft") / "model/config.json").read_bytes() != expected
    assert start()[0] == []
    assert (stage("sft") / "model/config.json").read_bytes() == expected


def test_a_stage_killed_while_it_wrote_is_not_taken_for_finished(start, stage, tmp_path, monkeypatch):
    start()
    partial = stage("sft").with_name(".sft.partial")
    shutil.copytree(stage("sft"), partial)
    (partial / "files.json").unlink()
    assert start()[0] == [] and not partial.exists()


@pytest.fixture
def start_in(workflow_file, stand_ins, tmp_path):
    """The same in a folder of its own, with a cache."""

    def start_in(out, *overrides):
        said = []
        loaded = workflow.load(workflow_file, overrides)
        runner.run(loaded, tmp_path / out, True, True, said.append, cache=tmp_path / "cache")
        return said

    return start_in


def test_runs_share_what_is_finished(start_in, tmp_path):
    """By hard links: the second run's files are the first one's."""
    assert sum("because" in line for line in start_in("one")) == 4
    said = start_in("two", "stages.other.learning_rate=0.5")
    ran = [line.split(" (")[0].rpartition("] ")[2] for line in said if "because" in line]
    assert ran == ["other", "evaluation"] and sum("taken from" in line for line in said) == 2
    first, second = (tmp_path / run / "stages/sft/model/config.json" for run in ("one", "two"))
    assert first.samefile(second)
    assert results.damage(tmp_path / "two/stages/sft", with_digests=True) is None
    assert len(list((tmp_path / "cache").iterdir())) == 6
    assert not [line for line in start_in("two", "stages.other.learning_rate=0.5") if "skipped" not in line]


@pytest.mark.parametrize("fault", ["cut", "flipped bit"])
def test_a_damaged_result_is_not_taken_and_is_shared_anew(start_in, tmp_path, fault):
    start_in("one")
    for key in (tmp_path / "cache").iterdir():
        text = (key / "metrics.jsonl").read_text()
        (key / "metrics.jsonl").unlink()  # not written to: it is the run's file too
        (key / "metrics.jsonl").write_text("x" if fault == "cut" else text)
        if fault == "flipped bit":
            flip(key / "metrics.jsonl")
    assert sum("because" in line for line in start_in("two")) == 4
    assert results.damage(tmp_path / "one/stages/sft", with_digests=True) is None
    assert sum("taken from" in line for line in start_in("three")) == 4


def test_without_links_it_is_copied(start_in, tmp_path, monkeypatch):
    def refused(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(results.os, "link", refused)
    start_in("one")
    assert sum("taken from" in line for line in start_in("two")) == 4
    paths = [tmp_path / run / "stages/sft/model/config.json" for run in ("one", "two")]
    assert not paths[0].samefile(paths[1]) and paths[0].read_bytes() == paths[1].read_bytes()
