"""The search of settings beside the comparison of algorithms: what is asked for, what is chosen, what is written."""

import pytest

from benchmarks import algorithm_curves, algorithm_settings, algorithms
from benchmarks.pages import write_between
from pipelines.report.records import RunRecord, StageRecord
from pipelines.workflow.overrides import override

pytestmark = pytest.mark.no_backend


def test_each_algorithm_of_the_comparison_is_tried_equally_often():
    settings = algorithm_settings.SETTINGS
    assert settings.keys() == algorithms.LABELS.keys() - {"sft"}
    assert {len(tried) for tried in settings.values()} == {3}
    assert all(len({str(setting) for setting in tried}) == 3 for tried in settings.values())


def test_a_setting_as_arguments():
    found = algorithm_settings.overrides("dpo", {"loss.beta": 2.0, "learning_rate": 3e-5})
    assert found == ["--set", "stages.dpo.loss.beta=2.0", "--set", "stages.dpo.learning_rate=3e-05"]
    data = {"stages": {"dpo": {"kind": "preference_optimization", "loss": {"name": "dpo"}, "learning_rate": 1}}}
    for text in found[1::2]:
        override(data, text)
    assert data["stages"]["dpo"]["loss"] == {"name": "dpo", "beta": 2.0}
    assert data["stages"]["dpo"]["learning_rate"] == 3e-5


def test_the_best_and_what_all_give_at_one_kl():
    """At 1 nat: half way between 0.8 at 0.5 and 0.9 at 1.5."""
    found = [(1.5, 0.9), (0.5, 0.8), (3.0, 0.85)]
    assert algorithm_settings.best(found) == 0
    assert algorithm_settings.at_common_kl(found, 0.7) == pytest.approx(0.85)
    assert algorithm_settings.at_common_kl([(2.0, 0.9)], 0.7) == pytest.approx(0.8)
    assert algorithm_settings.at_common_kl([(0.5, 0.9)], 0.7) is None


def test_a_table_goes_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- b -->\nafter\n")
    for _ in range(2):
        write_between(page, "<!-- a -->", "<!-- b -->", ["one", "two"])
    assert page.read_text() == "before\n<!-- a -->\n\none\ntwo\n\n<!-- b -->\nafter\n"
    with pytest.raises(ValueError, match="expected the marks"):
        write_between(page, "<!-- b -->", "<!-- a -->", [])


def test_a_curve_has_a_mean_and_a_band_and_best_of_n_its_own():
    def part(shift):
        rows = [
            {"step": step, "eval_gold": 0.7 + step / 100 + shift, "eval_kl_sequence": step / 10} for step in (0, 10)
        ]
        curve = [{"n": n, "gold": {"mean": n + shift}, "reward": {"mean": 0.0}} for n in (1, 2)]
        stages = [StageRecord("rloo", metrics=rows), StageRecord("best", final={"curve": curve})]
        return RunRecord("folder", "run", 17, "", stages)

    parts = [part(0.0), part(0.2)]
    axis = algorithm_curves.draw(parts, algorithm_curves.PAGES["rloo"]).axes[0]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.8, 0.9]) and len(axis.collections) == 1
    axis = algorithm_curves.draw(parts, algorithm_curves.PAGES["best_of_n"]).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [1, 2] and axis.lines[0].get_ydata().tolist() == pytest.approx(
        [1.1, 2.1]
    )
