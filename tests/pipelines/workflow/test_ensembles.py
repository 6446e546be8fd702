"""Several reward models as one reward: what a workflow may write, what it is told, and what follows from the names."""

import pytest

from pipelines.host.errors import ConfigError
from pipelines.run.keys import flat
from pipelines.schema.ensembles import Ensemble, as_said, ensemble_in
from pipelines.schema.roles import input_stages, plain
from pipelines.workflow import loading

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
model: google/gemma-3-270m
stages:
  sft: {{kind: instruction_tuning, data: {{path: a/b, prompt: p, completion: c}}}}
  first: {{kind: reward_modeling, from: sft, data: {{path: a/b, chosen: chosen, rejected: rejected}}}}
  second: {{kind: reward_modeling, from: sft, data: {{path: a/b, chosen: chosen, rejected: rejected}}, member: 1}}
  policy:
    kind: {kind}
    {model}
    data: {{path: a/b, prompt: p}}
    {key}: {reward}
"""
KEYS = {"policy_optimization": "reward", "best_of_n": "reward", "preference_collection": "rater", "evaluation": "judge"}


@pytest.fixture
def load(tmp_path):
    def load(reward, kind="policy_optimization", *overrides):
        path = tmp_path / "w.yaml"
        model = "compare: [sft]" if kind == "evaluation" else "from: sft"
        path.write_text(WORKFLOW.format(kind=kind, model=model, key=KEYS[kind], reward=reward))
        return loading.load(path, overrides).workflow.stages["policy"]

    return load


@pytest.mark.parametrize("kind", KEYS)
def test_members_are_inputs_and_stand_in_the_key_wherever_a_reward_is_named(load, kind):
    config = load("{ensemble: [first, reward_model:second], combine: uncertainty}", kind)
    assert input_stages(config, {"sft", "first", "second"}) == ["sft", "first", "second"]
    found = getattr(config, KEYS[kind])
    assert (found.ensemble, found.combine, found.weight) == (["first", "reward_model:second"], "uncertainty", 1.0)
    parts = flat(plain(config))
    assert parts[f"{KEYS[kind]}.combine"] == "uncertainty"
    assert load("{ensemble: [first, second]}", kind) != load("{ensemble: [second, first]}", kind)


def test_it_may_be_a_part_of_a_sum(load):
    config = load("[{reward: {ensemble: [first, second]}}, {reward: {function: length, at_most: 9}, weight: 0.5}]")
    assert input_stages(config, {"sft", "first", "second"}) == ["sft", "first", "second"]
    assert [part.label for part in config.reward] == ["ensemble", "length"]


def test_options_are_set_from_the_command_line(load):
    reward = load("{ensemble: [first, second], combine: uncertainty}", "best_of_n",
                  "stages.policy.reward.uncertainty_weight=0.5").reward  # fmt: skip
    assert reward.weight == 0.5 and load("{ensemble: [first, second]}").reward.combine == "mean"


@pytest.mark.parametrize(
    ("reward", "place", "words"),
    [
        ("[{reward: {ensemble: [first, second]}}, {reward: {ensemble: [second, first]}}]", "11:62",
         "the reward 'ensemble' stands in the sum twice"),
        ("{ensemble: [first, frist]}", "11:32", "'frist' is neither an earlier stage nor a model folder. Did you mean"),
        ("{ensemble: [first, sft]}", "11:32", "stage 'sft' is of kind instruction_tuning; expected a stage of kind"),
        ("{ensemble: [first, gold]}", "11:32", "'gold' is neither an earlier stage nor a model folder."),
        ("{ensemble: [first]}", "11:24", "`stages.policy.reward.ensemble`: expected at least 2 items, got 1"),
        ("{ensemble: [first, second, reward_model:first]}", "11:40",
         "'first' is named twice; its second vote says nothing new: name other reward models"),
        ("{ensemble: [first, second], combine: max}", "11:50", "expected mean or minimum or uncertainty, got the text"),
        ("{ensemble: [first, second], uncertainty_weight: 0.5}", "11:61",
         "has no effect with combine: mean; expected combine: uncertainty"),
        ("{ensemble: [first, second], combine: uncertainty, uncertainty_weight: -1}", "11:83", "greater than or equal"),
        ("{members: [first, second], ensemble: [first, second]}", "11:14", "unknown key 'members'."),
        ("{combine: mean}", "11:5", "missing key 'ensemble': Stages or model folders, each a reward model."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(load, tmp_path, reward, place, words):
    with pytest.raises(ConfigError) as caught:
        load(reward)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/w.yaml:{place}: ") and words in line


@pytest.mark.parametrize(
    ("judge", "place", "words"),
    [
        ("{ensemble: [first, sft]}", "11:31", "stage 'sft' is of kind instruction_tuning; expected a stage of kind"),
        ("{ensemble: [first, reward_model:first]}", "11:31", "'first' is named twice; its second vote says nothing"),
    ],
)
def test_a_judge_is_held_to_the_same(load, tmp_path, judge, place, words):
    with pytest.raises(ConfigError) as caught:
        load(judge, "evaluation")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/w.yaml:{place}: ") and words in line


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({}, "mean"),
        ({"combine": "minimum"}, "minimum"),
        ({"combine": "uncertainty", "uncertainty_weight": 0.25}, "mean - 0.25 variance"),
    ],
)
def test_its_words_name_the_members_and_can_be_read(options, formula):
    members = ["first", "reward_model:one, of two/model"]
    said = as_said(Ensemble(ensemble=members, **options))
    assert said == f"{formula} of reward_model:first, reward_model:one, of two/model"
    assert ensemble_in(said) == (formula, ["first", "one, of two/model"])


@pytest.mark.parametrize(
    "said",
    ["gold", "reward_model:first", "reward_model:a of reward_model:b",
     'function:regular_expression(pattern="one of reward_model:first", whole=false)'],
)  # fmt: skip
def test_what_is_no_ensemble_has_no_members(said):
    assert ensemble_in(said) == ("", [])
