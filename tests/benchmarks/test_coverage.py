"""The table of coverages: what a count allows, that a faulty interval is found, and that the truths are those drawn."""

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage_cases import (
    FIGURES,
    RATES,
    Figure,
    gold,
    gold_differences,
    of_mean,
    outcomes,
    percentile_bootstrap,
    rewards,
    right_answers,
    skewed_rewards,
    true_gold,
    true_gold_difference,
)
from gemma_keras.random import generator

pytestmark = pytest.mark.no_backend


def test_a_count_allows_what_neighbouring_values_have_together():
    # 0.9 and 1 have 98 %, 0.8 and 0.9 only 18: nothing lies between 92 and 98.
    assert coverage.attainable([1.0] * 81 + [0.9] * 17 + [0.8] * 2) == pytest.approx(0.98)
    assert coverage.attainable([1.0] * 95 + [0.9] * 5) == pytest.approx(0.95)
    assert coverage.attainable(np.linspace(0, 1, 1000).tolist()) == pytest.approx(0.92)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (right_answers, lambda rate: rate),
        (outcomes, lambda rate: rate),
        (gold, true_gold),
        (gold_differences, true_gold_difference),
        (rewards, lambda rate: 2 * rate - 1),
        (skewed_rewards, lambda rate: -1),
    ],
)
def test_the_truth_is_the_mean_of_what_is_drawn(draw, truth, rate):
    values, groups = draw(generator(5, "truth"), rate, 100_000, 2)
    assert values.mean() == pytest.approx(truth(rate), abs=0.01)
    assert len(values) == len(groups) == 200_000 and len(set(groups)) == 100_000


def test_a_faulty_interval_is_found(monkeypatch, capsys):
    faulty = Figure("faulty", of_mean(outcomes, None, lambda rate: rate, percentile_bootstrap))
    fine = next(figure for figure in FIGURES if figure.name == "win rate with ties")
    monkeypatch.setattr(coverage, "PROMPTS", (20,))
    monkeypatch.setattr(coverage, "SAMPLES", (1,))
    monkeypatch.setattr(coverage, "RATES", (0.9,))
    for figure, status in ((faulty, 1), (fine, 0)):
        monkeypatch.setattr(coverage, "FIGURES", (figure,))
        assert coverage.main(["--repetitions", "300", "--no-write"]) == status
    assert capsys.readouterr().out.startswith("| faulty | 0.9 | ")


def test_rows_that_are_not_measured_again_stay(tmp_path, monkeypatch):
    page = tmp_path / "intervals.md"
    page.write_text(f"before\n{coverage.BEGIN}\n{coverage.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(coverage, "PAGE", page)
    first, second = (f"| {figure.name} | 0.5 |" for figure in FIGURES[:2])
    coverage.write({second: f"{second} 95.0 |"})
    coverage.write({first: f"{first} 94.0 |"})
    coverage.write({second: f"{second} 96.0 |"})
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and text.count("| figure | rate |") == 1
    assert f"{first} 94.0 |\n{second} 96.0 |\n" in text and "95.0" not in text


def test_the_page_has_a_table_of_all_figures():
    page = coverage.PAGE.read_text(encoding="utf-8")
    table = page.partition(coverage.BEGIN)[2].partition(coverage.END)[0]
    for figure in FIGURES:
        assert table.count(f"| {figure.name} | ") == len(RATES), figure.name
