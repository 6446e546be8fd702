"""The summary of a made-up run, and how figures are written in words."""

import json
import math

import pytest
import report_fixture as fixture

from pipelines.host.errors import DataError
from pipelines.report import format as report_format
from pipelines.report import page as report
from pipelines.report import summary
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> dict:
    folder = fixture.write_run(tmp_path_factory.mktemp("runs") / "small_run")
    summary.build(folder, reports())
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_summary_has_the_promised_keys_with_the_stages_own_figures(figures):
    assert (figures["name"], figures["seed"], figures["backend"]) == ("small_run", 17, "jax")
    assert figures["versions"]["keras"] == "3.15.1"
    assert list(figures["stages"]) == list(fixture.STAGES)
    assert figures["stages"]["sft"]["seconds"] == 12.34 + 21.5
    assert figures["stages"]["sft"]["peak_memory_gib"] == 1.25 + 0.11
    assert figures["stages"]["sft"]["throughput"] == fixture.THROUGHPUT["instruction_tuning"]
    assert figures["stages"]["sft"]["programs"] == {"gradients": 2, "heldout_loss": 1}
    assert figures["stages"]["evaluation"]["throughput"] == figures["stages"]["evaluation"]["programs"] == {}
    assert figures["stages"]["sft"]["final"] == {
        "loss": 0.21,
        "eval_loss": 0.21 + 0.02,
        "eval_loss_flatness": 0.0078,
        "tokens": 1234567,
    }
    assert {
        key: figures["reward_model"][key] for key in ("accuracy", "accuracy_ci95", "ceiling", "regret", "pairs")
    } == {
        "accuracy": 0.803,
        "accuracy_ci95": [0.771, 0.832],
        "ceiling": 0.836,
        "regret": 0.041,
        "pairs": 614,
    }
    evaluation = figures["evaluation"]
    assert (evaluation["judge"], evaluation["prompts"], evaluation["policy"], evaluation["baseline"]) == (
        "gold",
        512,
        "policy",
        "sft",
    )
    assert (evaluation["win_rate"], evaluation["tie_rate"], evaluation["loss_rate"]) == (0.713, 0.22, 0.177)
    assert evaluation["win_rate_ci95"] == [0.682, 0.742]
    assert evaluation["difference"]["gold"] == {"mean": 0.14, "ci95": [0.119, 0.163]}
    assert evaluation["difference"]["gold_parts"]["polite"]["mean"] == 0.26
    assert evaluation["trained_on_judge"] == {"sft": False, "control": False, "policy": False}
    assert evaluation["gold_parts"]["policy"]["brief"] == {"mean": 0.88, "ci95": [0.859, 0.903]}


def test_the_last_stage_of_a_kind_feeds_the_top_level(figures):
    assert figures["policy"]["stage"] == "policy_no_kl"
    assert figures["policy"]["kl_sequence"] == 2.03 * 2.6
    assert figures["stages"]["policy"]["final"]["kl_sequence"] == 2.03


def test_what_is_missing_is_null(tmp_path):
    figures = summary.build(fixture.write_run(tmp_path / "run", stages=["pretrained", "sft"]), reports())
    assert list(figures["stages"]) == ["pretrained", "sft"]
    assert set(figures["policy"].values()) == {None}
    assert set(figures["reward_model"].values()) == {None} and {"stage", "regret_ci95"} <= set(figures["reward_model"])
    assert figures["evaluation"]["win_rate"] is None and figures["evaluation"]["gold_parts"] == {}


def test_figures_that_are_not_finite_become_null(tmp_path):
    folder = fixture.write_run(tmp_path / "run", stages=["policy"])
    final = folder / "stages" / "policy" / "final.json"
    final.write_text('{"reward_start": NaN, "reward_end": Infinity, "kl": 0.5, "steps": 3}', encoding="utf-8")
    assert summary.build(folder, reports())["policy"]["reward_end"] is None
    written = (folder / "summary.json").read_text(encoding="utf-8")
    assert "NaN" not in written and "Infinity" not in written and json.loads(written)["policy"]["kl"] == 0.5
    report.write(folder, reports())
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (1234, "1,234"), (0.0123, "0.012"), (-0.5, "\u22120.500"), (12.345, "12.3"), (9.9999, "10.0"), (0.00012,
     "1.2e-04"),
     (None, "–"), (math.nan, "–"), (True, "–"), (614.0, "614")],
)  # fmt: skip
def test_numbers_are_written_alike(value, words):
    assert report_format.number(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(4.21, "4.2 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (192, "3 min 12 s"), (7500, "2 h 05 min"), (None, "–")],
)
def test_durations_are_written_alike(value, words):
    assert report_format.seconds(value) == words


def test_a_missing_run_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no such run folder"):
        report.write(tmp_path / "nothing", reports())


def test_a_broken_metrics_line_is_named(tmp_path):
    folder = fixture.write_run(tmp_path / "run", stages=["sft"])
    (folder / "stages" / "sft" / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not readable as JSON"):
        summary.build(folder, reports())


def test_folders_get_short_names_unless_two_would_be_equal():
    assert report_format.short_names(["sft", "../runs/quickstart/stages/policy/model"]) == {
        "sft": "sft",
        "../runs/quickstart/stages/policy/model": "policy",
    }
    assert report_format.short_names(["runs/a/stages/sft", "runs/b/stages/sft/"]) == {
        "runs/a/stages/sft": "runs/a/stages/sft",
        "runs/b/stages/sft/": "runs/b/stages/sft/",
    }
    assert report_format.short_names(["/", "model"]) == {"/": "/", "model": "model"}
