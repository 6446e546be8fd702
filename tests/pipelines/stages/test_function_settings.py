"""The shipped functions with settings as raters: what they are handed, sums of them, and a stage that scores so."""

import time

import pytest
from policy_fixture import prompts_of, rollout_of, world_model
from stage_fixture import make_context, stage_config

from pipelines.host.errors import ConfigError, DataError
from pipelines.schema.functions import FUNCTIONS
from pipelines.scoring import raters
from pipelines.scoring.raters import FunctionRater, RaterSettings, SettingsRater, WeightedRater, make_rater
from pipelines.stages.registry import stage_function


def function(which, **settings):
    return FUNCTIONS[which].model_validate({"function": which, **settings})


@pytest.fixture
def scored():
    """One response that ended, one that was cut, one that stopped at once."""
    ids, finished = [[5, 6, 5, 6, 1], [5, 6, 7], [1]], [True, False, True]
    return prompts_of([[2]] * 3).examples, rollout_of([[2]] * 3, ids, finished, ["a b a b", "{}", ""])


def test_the_stop_token_is_no_part_of_the_response(scored):
    assert SettingsRater(function("length", at_most=3, fade=2)).score(*scored).total.tolist() == [0.5, 1, 1]
    assert SettingsRater(function("length", at_least=3)).score(*scored).total.tolist() == [1, 1, 0]
    assert SettingsRater(function("repetition", n=2)).score(*scored).total.tolist() == [pytest.approx(2 / 3), 1, 1]
    assert SettingsRater(function("json_schema")).score(*scored).total.tolist() == [0, 1, 0]


def test_names_bounds_and_sums(scored):
    short = SettingsRater(function("length", at_most=3, name="short"))
    assert (short.name, short.source, short.bounds) == (
        "short",
        'function:length(at_most=3, unit="tokens", fade=0)',
        (0, 1),
    )
    long = SettingsRater(function("length", at_least=3))
    both = WeightedRater([short, long, FunctionRater("answer_format")], [1.0, -2.0, 1.0])
    scores = both.score(*scored)
    assert scores.total.tolist() == [0 - 2, 1 - 2, 1] and list(scores.parts) == ["short", "length", "answer_format"]
    assert both.bounds == (-2, 2)
    with pytest.raises(ConfigError, match="The rewards of a sum must differ. Received: length, length"):
        WeightedRater([long, SettingsRater(function("length", at_most=2))], [1.0, 1.0])


def test_a_pattern_that_takes_years_names_the_response(scored, monkeypatch):
    monkeypatch.setattr(raters, "TEXT_SECONDS", 0.2)
    prompts, rollout = scored
    rollout.texts[1] = "a" * 40 + "b"
    started = time.monotonic()
    message = (
        r"^data.jsonl:2: the reward 'regular_expression' took over 0.2 s for the response 'aaa.*\(a\+\)\+, can take"
    )
    with pytest.raises(DataError, match=message):
        SettingsRater(function("regular_expression", pattern="(a+)+$")).score(prompts, rollout)
    assert time.monotonic() - started < 5


@pytest.mark.once
@pytest.mark.parametrize("kind", ["best_of_n", "preference_collection", "evaluation"])
def test_a_stage_scores_with_one(kind, tmp_path):
    settings = {"function": "length", "at_most": 2, "fade": 4}
    context = make_context(tmp_path, "stage", inputs={"sft": world_model(tmp_path / "sft", scale=4.0, stop_scale=5.0)})
    options = {
        "best_of_n": {"from": "sft", "reward": settings, "samples_per_prompt": 2},
        "preference_collection": {"from": "sft", "rater": settings},
        "evaluation": {"compare": ["sft"], "judge": settings},
    }[kind]
    data = {"task": "small_world", "split": "rl", "size": 12}
    final = stage_function(kind)(stage_config(kind, data=data, max_new_tokens=6, max_length=96, **options), context)
    key = {"best_of_n": "reward_source", "preference_collection": "rater", "evaluation": "judge"}[kind]
    assert final[key] == 'function:length(at_most=2, unit="tokens", fade=4)'


def test_make_rater_takes_them_alone_and_in_a_list(tmp_path, scored):
    context = make_context(tmp_path, "policy")
    settings = RaterSettings("float32", None, None, 4, 300)
    assert isinstance(make_rater(function("json_schema"), context, settings), SettingsRater)
    config = stage_config(
        "policy_optimization", data={"task": "small_world", "split": "rl", "size": 4},
        reward=[{"reward": {"function": "json_schema"}, "weight": 3}, {"reward": "answer_format"}],
    )  # fmt: skip
    assert make_rater(config.reward, context, settings).score(*scored).total.tolist() == [0, 3, 0]
