"""Gates: a figure of an earlier stage that a later one requires."""

import json

import pytest

from pipelines import cli
from pipelines.host.errors import ConfigError, GateError
from pipelines.run import runner
from pipelines.schema.gates import Gate, gate
from pipelines.workflow import loading as workflow

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("condition", "met", "missed"),
    [
        (">= 0.5", [0.5, 0.6], [0.4999, float("nan")]),
        ("<=-2e-1", [-0.2, -1], [0]),
        ("> 1", [2], [1]),
        ("< 1.5", [1], [1.5]),
    ],
)
def test_conditions(condition, met, missed):
    one = gate("reward.health.accuracy", condition)
    assert (one.stage, one.figure) == ("reward", ("health", "accuracy"))
    assert all(map(one.is_met, met)) and not any(map(one.is_met, missed))


def test_where_the_figure_is():
    one = Gate("s", ("a", "b"), ">", 0)
    assert one.find({"a": {"b": 2}}) == 2.0
    assert [one.find(final) for final in ({}, {"a": 1}, {"a": {"b": "2"}}, {"a": {"b": True}}, {"a": {"b": None}})] == [
        None
    ] * 5


@pytest.fixture
def start(workflow_file, stand_ins, tmp_path):
    """The workflow with a gate before its last stage; the stand-ins' figure is `loss`, 0.5."""

    def start(condition):
        text = workflow_file.read_text().replace("    compare:", f"    require: {condition}\n    compare:")
        workflow_file.with_name("gated.yaml").write_text(text)
        loaded = workflow.load(workflow_file.with_name("gated.yaml"))
        said = []
        runner.run(loaded, tmp_path / "run", in_process=True, quiet=True, say=said.append)
        return [line for line in said if "because" in line]

    return start


def test_a_gate_that_is_passed_and_one_that_is_not(start, tmp_path, workflow_file, capsys, monkeypatch):
    with pytest.raises(GateError) as error:
        start("{sft.loss: '< 0.4', other.loss: '<= 0.5'}")
    assert str(error.value) == "evaluation: not started, as sft.loss is 0.5 and < 0.4 is required"
    assert error.value.exit_code == 3
    assert {path.name for path in (tmp_path / "run/stages").iterdir()} == {"base", "sft", "other"}
    reason = "not started, as sft.loss is 0.5 and < 0.4 is required"
    assert json.loads((tmp_path / "run/gate.json").read_text()) == {"stage": "evaluation", "message": reason}
    assert (tmp_path / "run/report.html").is_file()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "gated.yaml", "--out", "run", "--in-process", "--quiet"]) == 3
    assert reason in capsys.readouterr().err
    # What is required is no part of the result: nothing finished runs again.
    (line,) = start("{sft.loss: '< 0.6'}")
    assert "evaluation" in line and not (tmp_path / "run/gate.json").exists()
    assert start("{sft.loss: '< 0.1'}") == []


def test_a_figure_that_is_not_there(start):
    with pytest.raises(ConfigError, match=r"sft\.los: sft has no such number\. Did you mean 'loss'\?.* It has: loss"):
        start("{sft.los: '< 0.6'}")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("{stf.loss: '< 1'}", "no earlier stage 'stf'. Did you mean 'sft'?"),
        ("{evaluation.loss: '< 1'}", "no earlier stage 'evaluation'."),
        ("{sft: '< 1'}", "'sft' names no figure"),
        ("{sft.loss: 'about 1'}", "'about 1' is no condition"),
    ],
)
def test_what_validate_says(start, condition, message):
    with pytest.raises(ConfigError) as error:
        start(condition)
    assert message in str(error.value) and "gated.yaml:" in str(error.value)
