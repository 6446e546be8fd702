"""An ensemble of reward models in the stages that a reward scores for."""

import json

import numpy as np
import pytest
from policy_fixture import OPTIONS, rollout_of, world_model, world_reward_model
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras import GemmaRewardModel
from pipelines.host.errors import ConfigError
from pipelines.schema.ensembles import Ensemble
from pipelines.scoring.raters import RaterSettings, make_rater
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.best_of_n import run as best_of_n
from pipelines.stages.evaluation import run as evaluation
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.preference_collection import run as preference_collection

pytestmark = pytest.mark.once

MEMBERS = {"first": (5, 0.1, 0.5), "second": (6, -0.2, 0.25), "third": (7, 0.0, 2.0)}
"""Of each member its seed, and the mean and deviation that normalise it."""
SETTINGS = RaterSettings("float32", None, None, 4, 300)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rewards = {name: world_reward_model(folder / name, *options) for name, options in MEMBERS.items()}
    return {"sft": world_model(folder / "sft", scale=4.0), **rewards}


@pytest.fixture(scope="module")
def normalized(inputs):
    """Sequences → scores (k, n) of the three, normalised by the numbers above."""
    models = {name: SequenceScorer(GemmaRewardModel.from_preset(inputs[name] / "model"), 8) for name in MEMBERS}

    def scores(sequences):
        raw = {name: scorer.raw_scores(sequences).astype(np.float64) for name, scorer in models.items()}
        return np.array([(raw[name] - mean) / std for name, (_, mean, std) in MEMBERS.items()])

    return scores


ROLLOUT = rollout_of(
    [[2, 90, 91], [2, 100], [2, 7, 8]], [[50, 60], [51], [52, 61, 1]], [False, False, True], ["", "", ""]
)


@pytest.mark.parametrize(
    ("options", "formula", "words"),
    [
        ({}, lambda r: r.mean(axis=0), "mean of"),
        ({"combine": "minimum"}, lambda r: r.min(axis=0), "minimum of"),
        ({"combine": "uncertainty"}, lambda r: r.mean(axis=0) - r.var(axis=0), "mean - 1 variance of"),
        ({"combine": "uncertainty", "uncertainty_weight": 0.25}, lambda r: r.mean(axis=0) - 0.25 * r.var(axis=0),
         "mean - 0.25 variance of"),
    ],
)  # fmt: skip
def test_normalised_scores_of_the_members_are_combined(inputs, normalized, tmp_path, options, formula, words):
    rater = make_rater(Ensemble(ensemble=list(MEMBERS), **options), make_context(tmp_path, "policy", inputs), SETTINGS)
    found = rater.score([None] * 3, ROLLOUT)
    expected = normalized(ROLLOUT.sequences())
    assert np.ptp(expected, axis=0).min() > 0.05
    np.testing.assert_allclose(found.total, formula(expected), atol=1e-4)
    assert list(found.parts) == [*MEMBERS, "ensemble_std"]
    np.testing.assert_allclose(np.stack(list(found.parts.values())), [*expected, expected.std(axis=0)], atol=1e-4)
    assert rater.source == f"{words} reward_model:first, reward_model:second, reward_model:third"
    assert rater.bounds is None


def test_it_may_be_a_part_of_a_sum(inputs, normalized, tmp_path):
    parts = [
        {"reward": {"ensemble": ["first", "second"], "combine": "minimum"}, "weight": 2.0},
        {"reward": {"function": "length", "at_most": 1}, "weight": -0.5},
    ]
    config = stage_config("policy_optimization", **{"data": {"path": "a", "prompt": "p"}, **OPTIONS, "reward": parts})
    found = make_rater(config.reward, make_context(tmp_path, "policy", inputs), SETTINGS).score([None] * 3, ROLLOUT)
    lowest, is_short = normalized(ROLLOUT.sequences())[:2].min(axis=0), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(found.total, 2 * lowest - 0.5 * is_short, atol=1e-4)
    np.testing.assert_allclose(found.parts["ensemble"], lowest, atol=1e-4)


def test_two_folders_of_one_name_are_refused(tmp_path):
    for place in "ab":
        world_reward_model(tmp_path / place)
    both = Ensemble(ensemble=[str(tmp_path / place / "model") for place in "ab"])
    with pytest.raises(
        ConfigError,
        match="need names that differ, and none may be 'ensemble_std'. Received: model, model. A folder is called",
    ):
        make_rater(both, make_context(tmp_path, "policy"), SETTINGS)


@pytest.mark.once
def test_a_policy_is_trained_on_it_and_logs_its_members(inputs, tmp_path):
    ensemble = {"ensemble": list(MEMBERS), "combine": "mean"}
    options = {**OPTIONS, "from": "sft", "reward": ensemble, "steps": 1, "eval_prompts": 4}
    context = make_context(tmp_path, "policy", inputs)
    final = policy_optimization.run(stage_config("policy_optimization", **options), context)
    assert final["reward_source"].startswith("mean of reward_model:first,")
    rows = [row for row in read_jsonl(context.output / "metrics.jsonl") if "reward" in row or "eval_reward" in row]
    assert len(rows) == 3
    for row in rows:
        start = "eval_" if "eval_reward" in row else ""
        of_members = [row[f"{start}rewards/{name}/mean"] for name in MEMBERS]
        assert row[f"{start}reward"] == pytest.approx(np.mean(of_members), abs=1e-9)
        assert row[f"{start}rewards/ensemble_std/mean"] > np.std(of_members)


@pytest.mark.once
def test_best_of_n_keeps_what_the_worst_member_likes_best(inputs, normalized, tmp_path):
    data = {"task": "small_world", "split": "rl", "size": 6}
    options = {"from": "sft", "reward": {"ensemble": list(MEMBERS), "combine": "minimum"}, "data": data,
               "samples_per_prompt": 4, "max_new_tokens": 6, "max_length": 96, "batch_size": 8}  # fmt: skip
    context = make_context(tmp_path, "best", inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_of_n, "_sample", _all_finished(best_of_n._sample))
        final = best_of_n.run(stage_config("best_of_n", **options), context)
    assert final["reward_source"].startswith("minimum of reward_model:first,")
    rows = read_jsonl(context.output / "demonstrations.jsonl")
    expected = normalized([row["prompt_ids"] + row["completion_ids"] for row in rows]).min(axis=0)
    np.testing.assert_allclose([row["reward"] for row in rows], expected, atol=1e-4)


@pytest.mark.once
def test_it_rates_pairs(inputs, normalized, tmp_path):
    data = {"task": "small_world", "split": "preferences", "size": 6}
    options = {"from": "sft", "rater": {"ensemble": list(MEMBERS), "combine": "uncertainty"}, "noise": "none",
               "data": data, "max_new_tokens": 6, "max_length": 96, "batch_size": 8}  # fmt: skip
    context = make_context(tmp_path, "preferences", inputs)
    final = preference_collection.run(stage_config("preference_collection", **options), context)
    assert final["rater"].startswith("mean - 1 variance of reward_model:first,") and final["agreement"] == 1
    rows = read_jsonl(context.output / "preferences.jsonl")
    for side in ("chosen", "rejected"):
        scores = normalized([row["prompt_ids"] + row[f"{side}_ids"] for row in rows])
        expected = scores.mean(axis=0) - scores.var(axis=0)
        np.testing.assert_allclose([row[f"score_{side}"] for row in rows], expected, atol=1e-4)


def test_it_judges(inputs, normalized, tmp_path):
    config = stage_config(
        "evaluation", compare=["sft", "other"], judge={"ensemble": ["first", "second"], "combine": "minimum"},
        data={"task": "small_world", "split": "heldout", "size": 6},
        max_new_tokens=6, max_length=96, batch_size=8, temperature=0.0,
    )  # fmt: skip
    other = world_model(tmp_path / "other", seed=4, scale=4.0)
    context = make_context(tmp_path, "evaluation", inputs={**inputs, "other": other})
    drawn = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure_policy", _kept(evaluation.measure_policy, drawn))
        final = evaluation.run(config, context)
    found = json.loads((context.output / "evaluation.json").read_text())
    assert found["judge"] == final["judge"] == "minimum of reward_model:first, reward_model:second"
    scores = {}
    for name, rollout in drawn.items():
        of_members = normalized(rollout.sequences())[:2]
        scores[name] = of_members.min(axis=0)
        figures = found["policies"][name]
        assert figures["judge_score"]["mean"] == pytest.approx(scores[name].mean(), abs=1e-4)
        parts = {"first": of_members[0], "second": of_members[1], "ensemble_std": of_members.std(axis=0)}
        assert {part: one["mean"] for part, one in figures["judge_parts"].items()} == {
            part: pytest.approx(one.mean(), abs=1e-4) for part, one in parts.items()
        }
    outcomes = np.where(np.abs(scores["other"] - scores["sft"]) < 1e-5, 0.5, scores["other"] > scores["sft"])
    assert final["win_rate"] == pytest.approx(outcomes.mean())
    assert set(found["seen_elsewhere"]) == {"sft", "other", "first", "second"}


def _kept(measure_policy, drawn):
    def measured(name, *arguments):
        result = measure_policy(name, *arguments)
        drawn[name] = result.rollout
        return result

    return measured


def _all_finished(sample):
    def sampled(*arguments):
        rollout = sample(*arguments)
        rollout.finished[:] = True
        return rollout

    return sampled
