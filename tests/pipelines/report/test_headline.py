"""What a run prints at its end where it compared no policies: what was learned, and where it lies."""

import json

import pytest
import report_fixture as fixture
from report_page import Page, written

from pipelines import cli
from pipelines.report import headline
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend


def tuned(folder):
    """A run whose SFT stage logged five losses and two held-out ones."""
    folder = fixture.write_run(folder, stages=["sft"])
    rows = [{"step": step, "loss": loss} for step, loss in enumerate([3.0, 2.5, 2.0, 1.5, 1.25], 1)]
    rows += [{"step": 0, "eval_loss": 3.5}, {"step": 5, "eval_loss": 1.5}]
    place = folder / "stages" / "sft"
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (place / "final.json").write_text('{"train_loss": 1.375, "eval_loss": 1.5, "tokens": 12345}', encoding="utf-8")
    return folder


def test_a_run_without_evaluation_ends_with_its_losses(tmp_path):
    folder = tuned(tmp_path / "run")
    page = Page(written(folder))
    said = "from 3.00 to 1.38, held out from 3.50 to 1.50, 12,345 tokens"
    assert page.heading == f"1 stage finished; none compares policies. Loss of sft: {said}"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["stages"]["sft"]["loss"] == {
        "first": 3.0,
        "last": 1.375,
        "heldout_first": 3.5,
        "heldout_last": 1.5,
    }
    lines = headline.lines(summary, reports())
    assert lines[0].startswith("sft ") and lines[1:] == [f"loss of sft  {said}"]


def test_the_peak_of_a_device_is_called_so(tmp_path):
    folder = fixture.write_run(tmp_path / "run", stages=["pretrained", "sft"])
    file = folder / "stages/sft/stage.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**about, "peak_memory_gib": 17.5, "peak_memory_of": "device"}), encoding="utf-8")
    written(folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    of = {name: stage["peak_memory_of"] for name, stage in summary["stages"].items()}
    assert of == {"pretrained": None, "sft": "device"}
    ends = {line.split()[0]: line.rpartition(", ")[2] for line in headline.lines(summary, reports())}
    assert (ends["pretrained"], ends["sft"]) == ("1.25 GiB", "17.50 GiB of the device")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count(" of the device</td>") == 1


def test_where_nothing_was_held_out_the_training_loss_stands_alone(tmp_path):
    folder = tuned(tmp_path / "run")
    (folder / "stages/sft/metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n', encoding="utf-8")
    (folder / "stages/sft/final.json").write_text('{"train_loss": 1.25, "eval_loss": null}', encoding="utf-8")
    written(folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert headline.lines(summary, reports())[-1] == "loss of sft  from 3.00 to 1.25"


def test_a_run_with_an_evaluation_prints_no_losses(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    written(folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert not any(line.startswith("loss of") for line in headline.lines(summary, reports()))
    assert summary["stages"]["policy"]["loss"] is None, "a policy's loss only stands in for its reward"


def test_the_last_model_is_named(tmp_path, capsys):
    folder = tuned(tmp_path / "run")
    assert cli.main(["report", str(folder)]) == 0
    assert "model:" not in capsys.readouterr().out
    (folder / "stages/sft/model").mkdir()
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"model:  {folder}/stages/sft/model",
        f"report: {folder}/report.html",
    ]


def test_of_several_seeds_the_first_ones_model_is_named(tmp_path, capsys):
    folder = tuned(tmp_path / "run")
    text = (folder / "workflow.yaml").read_text(encoding="utf-8")
    (folder / "workflow.yaml").write_text("seeds: {values: [5, 6]}\n" + text, encoding="utf-8")
    for seed in ("5", "6"):
        (folder / "seeds" / seed / "stages").mkdir(parents=True)
    (folder / "stages/sft").rename(folder / "seeds/5/stages/sft")
    (folder / "seeds/5/stages/sft/model").mkdir()
    assert cli.main(["report", str(folder)]) == 0
    assert f"model:  {folder}/seeds/5/stages/sft/model\n" in capsys.readouterr().out
