"""Parts of the report by themselves: what is said of a fall, and where the arrows of the chain lead."""

import pytest
import report_fixture as fixture

from pipelines.report import chain as report_chain
from pipelines.report.records import StageRecord
from pipelines.stages.policy_optimization.report.words import overoptimization_words

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("golds", "words"),
    [
        ([0.5, 0.5], "Gold was highest at the last step"),
        ([0.5, 0.6, 0.56], "may be chance"),
        ([0.5, 0.6, 0.52], "so the reward was over-optimized"),
        ([0.5], None),
    ],
)
def test_a_fall_counts_where_it_leaves_the_interval_of_the_peak(golds, words):
    rows = [
        {"step": step, "eval_gold": gold, "eval_gold_ci95_low": gold - 0.03, "eval_gold_ci95_high": gold + 0.03}
        for step, gold in enumerate(golds)
    ]
    said = overoptimization_words(StageRecord("policy", metrics=rows))
    assert said is None if words is None else words in said


def test_arrows_of_the_chain_lead_from_inputs_to_users():
    stages = [StageRecord(name, inputs=fixture.inputs_of(name)) for name in fixture.STAGES]
    chain = report_chain.layout(stages)
    assert [box.uses for box in chain.boxes] == [
        [],
        ["pretrained"],
        ["sft"],
        ["sft"],
        ["sft", "preferences"],
        *[["sft", "reward"]] * 3,
        ["sft", "control", "policy"],
    ]
    assert len(chain.arrows) == 9  # sft reaches reward, policies and evaluation through others
    places = [(box.x, box.y) for box in chain.boxes]
    assert len(set(places)) == len(places)
    assert all(
        0 <= x <= chain.width - report_chain.BOX_WIDTH and 0 <= y <= chain.height - report_chain.BOX_HEIGHT
        for x, y in places
    )
