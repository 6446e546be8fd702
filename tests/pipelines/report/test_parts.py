"""Parts of the report by themselves: what is said of a fall, and where the arrows of the chain lead."""

import pytest
import report_fixture as fixture

from pipelines.report import chain as report_chain
from pipelines.report.records import StageRecord
from pipelines.stages.policy_optimization.report.words import drift_words, overoptimization_words, policy_words

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


def test_a_peak_of_many_looks_needs_a_deeper_fall():
    """At 17 looks 95 % of all are 97.06 %, and the normal quantile 1.96 becomes 2.975."""

    def said(end):
        golds = [0.5] * 8 + [0.6] + [0.55] * 7 + [end]
        rows = [
            {"step": step, "eval_gold": gold, "eval_gold_ci95_low": gold - 0.02, "eval_gold_ci95_high": gold + 0.02}
            for step, gold in enumerate(golds)
        ]  # fmt: skip
        return overoptimization_words(StageRecord("policy", metrics=rows))

    wide = 0.02 * 2.9753 / 1.95996
    assert "peak of 17 looks; the intervals do not overlap" in said(0.6 - 2 * wide - 0.001)
    assert "may be chance" in said(0.6 - 2 * wide + 0.001)
    assert f"(0.600 [{0.6 - wide:.3f}, {0.6 + wide:.3f}])" in said(0.5)


def test_what_a_reward_still_says_of_gold_is_said():
    rows = [
        {"step": step, "eval_gold": gold, "eval_reward": 1.0 + step, "eval_reward_gold_correlation": correlation}
        for step, (gold, correlation) in enumerate(((0.5, 0.875), (0.6, 0.5), (0.4, -0.25)))
    ]
    said = overoptimization_words(StageRecord("policy", metrics=rows))
    assert "from 1.00 to 3.00. Among responses its rank correlation with gold went from 0.875 to −0.250. " in said
    assert "correlation" not in overoptimization_words(
        StageRecord("policy", metrics=[{**row, "eval_reward_gold_correlation": None} for row in rows])
    )


def test_what_a_sampler_beside_the_policy_cost_is_said():
    figures = {"steps": 3, "sampling_kl": 0.00123, "rollout_dtype": "int8", "importance_truncated": 0.004}
    assert policy_words("policy", figures) == (
        "policy: in 3 steps. A copy with weights in int8 drew its rollouts; that sampler lay 0.001 nats a token from "
        "the policy, and importance weights correct for it, truncated at 0.4 % of the tokens."
    )
    alone = {"steps": 3, "sampling_kl": 0.00012}
    assert policy_words("policy", alone) == (
        "policy: in 3 steps. Its sampler lay 1.2e-04 nats a token from the policy, and nothing corrects for it."
    )


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


def test_a_policy_is_told_how_its_responses_changed():
    """Twenty steps: the first two and the last two count."""
    rows = [{"step": 0, "eval_reward": 0.5}] + [
        {
            "step": step, "completions/mean_length": 10.0 + step, "entropy": 3.0 - 0.1 * step,
            "completions/equal_pairs": 0.02 * step, "frac_reward_zero_std": float("nan"),
        }
        for step in range(1, 21)
    ]  # fmt: skip
    assert drift_words(StageRecord("policy", metrics=rows)) == (
        "From the first to the last tenth of its steps a response went from 11.5 to 29.5 tokens; the entropy from 2.85 "
        "to 1.05 nats a token; equal answers among those to a prompt from 3.0 % to 39.0 %."
    )
    assert drift_words(StageRecord("policy", metrics=rows[:1])) == ""
    assert "from 11.0 to 11.0 tokens" in drift_words(StageRecord("policy", metrics=rows[:2]))
