"""The model card of a run, and what memorization and benchmarks put there and on the page."""

import json

import pytest
import report_fixture as fixture

from pipelines.report import page as report
from pipelines.report.card import model_card, table
from pipelines.report.parts import KindReport
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend


def memorized(model, source, group, exact, **personal):
    counts = {"sensitive": 0, "personal": 0, "none": 3, **personal}
    return {
        "model": model, "source": source, "group": group, "documents": 1200, "exact": exact,
        "exact_ci95": [exact / 2, exact * 2], "approximate": exact, "approximate_ci95": [exact / 2, exact * 2],
        "personal_data": counts, "kinds": {"credit_card": 2, "email": 1} if personal else {},
    }  # fmt: skip


MEMORIZATION = {
    "rows": [
        memorized("policy", "web", "trained", 0.125, sensitive=2, personal=1),
        memorized("policy", "web", "unseen", 0.0),
        memorized("org/some|model", "web", "given", 0.25),
    ],
    "by_repeats": [{**memorized("policy", "", "", 0.4), "at_least": count} for count in (1, 64)],
    "examples": [
        {"model": "policy", "source": "", "group": "trained", "repeats": 64, "edits": 2, "continuation": "<b>[EMAIL]"}
    ],
    "passed_over": 1234,
}  # fmt: skip
BENCHMARKS = {
    "columns": ["Gemma 2B"],
    "benchmarks": [
        {
            "model": "policy", "benchmark": "piqa", "suite": None, "metric": "acc", "value": 0.5, "ci95": [0.4, 0.6],
            "rows": 12, "of_rows": 30, "shots": 0, "published": {"Gemma 2B": 0.773}, "source": "arXiv:2403.08295",
            "lower_is_better": False, "note": None, "skipped": None, "turns": False, "cut_contexts": 0,
            "seen_in_training": 7, "others": {"acc_norm": 0.25, "gap": -0.125},
            "others_ci95": {"acc_norm": [0.2, 0.3], "gap": None},
        }
    ],
    "settings": {"Engine": "lm-eval 0.4.13"},
}  # fmt: skip


def with_stage(folder, name, kind, final, config=None):
    stage = folder / "stages" / name
    stage.mkdir()
    about = {"name": name, "kind": kind, "key": "0" * 64, "inputs": [], "config": config or {}}
    (stage / "stage.json").write_text(json.dumps(about), encoding="utf-8")
    (stage / "final.json").write_text(json.dumps(final), encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with stages of which a card can speak: its folder, and the summary that was written."""
    folder = fixture.write_run(tmp_path_factory.mktemp("card") / "run")
    report.write(folder, reports())
    assert not (folder / "model_card.md").exists(), "nothing to say"
    workflow = (
        (folder / "workflow.yaml").read_text(encoding="utf-8").replace("stages:", "stages:\n  said: {}\n  asked: {}")
    )
    (folder / "workflow.yaml").write_text(workflow, encoding="utf-8")
    settings = {"prompt_tokens": 50, "continuation_tokens": 40, "distance": 0.1}
    with_stage(folder, "said", "memorization", MEMORIZATION, settings)
    with_stage(folder, "asked", "benchmark", BENCHMARKS)
    return folder, report.write(folder, reports())


def test_the_card_says_what_benchmarks_and_memorization_found(run):
    folder, figures = run
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {figures['name']}\n\nSeed {figures['seed']}, backend {figures['backend']}.\n")
    assert "## Benchmarks (asked)" in card and "- Engine: lm-eval 0.4.13" in card
    assert "| piqa | acc, 0-shot, 12 of 30 rows | 50.0 % [40.0, 60.0] | 77.3 % |" in card
    assert "| piqa | acc_norm | 25.0 % [20.0, 30.0] |" in card and "| piqa | gap | -0.125 |" in card
    assert "piqa: policy had learned from 7 of its 12 rows." in card
    assert "## Memorization (said)" in card and "the next 40 (exact), or within 10 % edits (approximate)?" in card
    said = "2 sensitive, 1 personal (credit card: 2, email: 1)"
    assert f"| policy | web | was trained on it | 1,200 | 12.5 % [6.2, 25.0] | 12.5 % [6.2, 25.0] | {said} |" in card
    assert "| org/some\\|model | web | not known | 1,200 |" in card


def test_the_page_shows_memorization(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "1,234 documents were too short or too long" in page and "64 times or more" in page
    assert "2 sensitive, 1 personal (credit card: 2, email: 1)" in page and "was not trained on it" in page
    assert "2 edits: &lt;b&gt;[EMAIL]" in page


def test_the_page_shows_the_other_figures_of_a_benchmark(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert '<td>acc_norm</td><td class="right">25.0 % [20.0, 30.0]</td>' in page
    assert '<td>gap</td><td class="right">-0.125</td>' in page


def test_a_finished_run_prints_what_was_memorized(run):
    lines = {name: value for one in reports() for name, value in one.lines(run[1])}
    assert lines["said: policy, web trained"] == "exact 0.125 [0.062, 0.250]"


def test_a_cell_ends_where_it_ends():
    assert table(["a", "b"], [["x|y\nz", "1"]]) == ["| a | b |", "| --- | --- |", "| x\\|y z | 1 |"]


def test_there_is_no_card_without_anything_to_say():
    silent = KindReport("x", lambda run: {})
    speaking = KindReport("y", lambda run: {}, card=lambda figures: ["## Y", "", figures["name"]])
    figures = {"name": "run", "seed": 3, "backend": "jax"}
    assert model_card(figures, [silent]) is None
    assert model_card(figures, [silent, speaking]) == "# run\n\nSeed 3, backend jax.\n\n## Y\n\nrun\n"
