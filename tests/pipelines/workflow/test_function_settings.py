"""The shipped functions with settings, as a workflow writes them: each complaint with its place."""

import re

import pytest

from pipelines.host.errors import ConfigError
from pipelines.schema.ensembles import as_said
from pipelines.schema.functions import FUNCTIONS, functions_with_settings
from pipelines.stages.evaluation.report.judge import judge_sentence, judge_words, trained_on
from pipelines.workflow import loading, yaml_reader

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: shipped
model: google/gemma-3-270m
stages:
  preferences:
    kind: preference_collection
    data: {path: a/b}
    rater: {function: repetition, n: 2}
  best:
    kind: best_of_n
    data: {path: a/b}
    reward: {function: json_schema}
  policy:
    kind: policy_optimization
    data: {path: a/b}
    reward:
      - {reward: {function: length, at_most: 80, unit: words, fade: 20}}
      - {reward: {function: regular_expression, pattern: '(?i)thanks'}, weight: 0.5}
      - {reward: {function: regular_expression, pattern: '^\\s', name: blank}, weight: -1}
  evaluation:
    kind: evaluation
    compare: [policy]
    data: {path: a/b}
    judge: {function: regular_expression, pattern: '(?i)thanks'}
"""


@pytest.fixture
def load(tmp_path):
    def load(text=WORKFLOW, *overrides):
        (tmp_path / "w.yaml").write_text(text)
        return loading.load(tmp_path / "w.yaml", overrides)

    return load


def errors(load, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return [line.partition("w.yaml:")[2] or line for line in str(caught.value).splitlines()]


def test_they_stand_wherever_something_scores(load):
    stages = load().workflow.stages
    assert stages["preferences"].rater.n == 2 and stages["best"].reward.schema_ == {}
    first, second, third = stages["policy"].reward
    assert (first.reward.at_most, first.reward.at_least, first.reward.fade, first.weight) == (80, None, 20, 1.0)
    assert [part.label for part in (first, second, third)] == ["length", "regular_expression", "blank"]
    assert as_said(first.reward) == 'function:length(at_most=80, unit="words", fade=20)'
    assert as_said(stages["evaluation"].judge) == 'function:regular_expression(pattern="(?i)thanks", whole=false)'
    assert as_said("gold") == "gold"


def test_what_the_run_folder_gets_is_the_same_workflow(load):
    text = WORKFLOW.replace("{function: json_schema}", "{function: json_schema, schema: {enum: [null], const: null}}")
    for written in (WORKFLOW, text) if _has_jsonschema() else (WORKFLOW,):
        loaded = load(written)
        assert load(yaml_reader.dump(loaded.as_data())).workflow == loaded.workflow


def _has_jsonschema():
    import importlib.util

    return importlib.util.find_spec("jsonschema") is not None


def test_an_override_reaches_a_setting(load):
    loaded = load(WORKFLOW, "stages.preferences.rater.n=5", "stages.best.reward={function: length, at_least: 3}")
    assert loaded.workflow.stages["preferences"].rater.n == 5 and loaded.workflow.stages["best"].reward.at_least == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("function: repetition, n: 2", "function: repetitoin", "7:23: unknown function 'repetitoin'. Did you mean "
         "'repetition'? Known: regular_expression, length, repetition, json_schema"),
        ("function: repetition, n: 2", "function: exact_answer", "7:23: unknown function 'exact_answer'. exact_answer "
         "takes no settings: write its name alone. Known: "),
        ("function: repetition, n: 2", "n: 2", "7:5: missing key 'function': which one these are the settings of. "
         "Known: regular_expression, length"),
        ("function: repetition, n: 2", "function: [repetition]", "7:23: unknown function ['repetition']."),
        ("function: repetition, n: 2", "function: repetition, m: 2", "7:35: unknown key 'm'. Known "
         "here: function, name, n"),
        ("function: repetition, n: 2", "function: repetition, n: 0", "7:38: `stages.preferences.rater.n`: expected "
         "greater than or equal to 1, got 0"),
        ("at_most: 80, unit", "at_most: x, unit", "16:46: `stages.policy.reward.0.reward.at_most`: expected a whole "
         "number, got the text 'x'"),
        ("unit: words", "unit: word", "16:56: `stages.policy.reward.0.reward.unit`: expected tokens or words or "
         "characters, got the text 'word'. Did you mean 'words'?"),
        ("at_most: 80, ", "", "16:18: length without a limit; expected at_least, at_most or both"),
        ("at_most: 80, ", "at_most: 80, at_least: 90, ", "16:60: 90 is over at_most 80; expected at most that"),
        ("pattern: '(?i)thanks'}, ", "pattern: '(?i)th(anks'}, ", "17:58: no regular expression: missing ), "
         "unterminated subpattern at position 6; got '(?i)th(anks'"),
        ("pattern: '(?i)thanks'}, ", "flags: i}, ", "17:10: missing key 'pattern': Python's `re`; flags"),
        (", name: blank", "", "18:18: the reward 'regular_expression' stands in the sum twice; add their weights up, "
         "or give a function with settings another `name`"),
        ("name: blank", "name: a b", "18:71: `stages.policy.reward.2.reward.name`: expected letters, digits, `.`, `_` "
         "and `-`, got the text 'a b'"),
        ("rater: {function: repetition, n: 2}", "rater: 3", "7:12: `stages.preferences.rater`: expected a text, got 3"),
        ("rater: {function: repetition, n: 2}", "rater: length", "7:12: unknown rater 'length'. Known: gold, "
         "exact_answer, answer_format, reward_model:<stage>; with settings, {function: NAME, ...}: "
         "regular_expression, length"),
        ("reward: {function: json_schema}", "reward: []", "11:13: "),
        ("function: json_schema", "function: code_tests, seconds: 0", "11:45: `stages.best.reward.seconds`: expected "
         "greater than 0, got 0"),
        ("function: json_schema", "function: code_tests, sandbox: false", "11:45: `stages.best.reward.sandbox`: "
         "expected auto or bubblewrap or unshare or none, got false"),
    ],
)  # fmt: skip
def test_complaints_have_their_place(load, old, new, message):
    assert old in WORKFLOW
    lines = errors(load, WORKFLOW.replace(old, new))
    assert any(line.startswith(message) for line in lines), lines


@pytest.mark.needs("jsonschema")
def test_a_schema_is_checked_with_its_place(load):
    text = WORKFLOW.replace("{function: json_schema}", "{function: json_schema, schema: {type: objekt}}")
    (line,) = errors(load, text)
    assert line.startswith(
        "11:45: no valid JSON Schema: 'objekt' is not valid under any of the given schemas (at type)"
    )


def test_without_the_package_a_schema_says_how_to_get_it(load, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jsonschema.exceptions", None)
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    text = WORKFLOW.replace("{function: json_schema}", "{function: json_schema, schema: {type: object}}")
    (line,) = errors(load, text)
    assert re.match(
        r"11:45: the package 'jsonschema' is not installed\. Run: pip install '(jsonschema|json-schema)", line
    )
    assert load().workflow.name == "shipped"  # any JSON needs none


def test_scores_take_text_and_tokens(load):
    def scorer(function, **settings):
        return FUNCTIONS[function].model_validate({"function": function, **settings}).scorer()

    text, tokens = "a b  a b", [7, 8, 7, 8, 7]
    assert [scorer("length", at_most=4, unit=unit)(text, tokens) for unit in ("tokens", "words", "characters")] == [
        0, 1, 0,
    ]  # fmt: skip
    assert scorer("length", at_least=5, at_most=5)(text, tokens) == 1
    assert scorer("length", at_least=8, unit="characters")(text, tokens) == 1
    assert scorer("repetition", n=2)(text, tokens) == 0.5 and scorer("repetition")(text, tokens) == pytest.approx(2 / 3)
    assert scorer("regular_expression", pattern="b  a")(text, tokens) == 1
    assert scorer("regular_expression", pattern="b  a", whole=True)(text, tokens) == 0
    assert (scorer("json_schema")("{}", tokens), scorer("json_schema")(text, tokens)) == (1, 0)


class Stage:
    def __init__(self, name, kind, config):
        self.name, self.kind, self.config = name, kind, config


def test_the_report_knows_whether_a_policy_was_trained_on_such_a_judge(load):
    """Of two patterns only the one that it was trained on."""
    plain = load().as_data()["stages"]
    stages = [Stage(name, plain[name]["kind"], plain[name]) for name in ("preferences", "policy")]
    judge = as_said(load().workflow.stages["evaluation"].judge)
    assert list(functions_with_settings(plain["policy"]))[1] == judge.removeprefix("function:")
    assert trained_on(judge, ["policy"], stages) == {"policy": True}
    other = 'function:regular_expression(pattern="a/b", whole=false)'
    assert trained_on(other, ["policy"], stages) == {"policy": False}
    assert judge_words(other, False) == 'the function “regular_expression(pattern="a/b", whole=false)”'
    assert "that policy was trained on" in judge_sentence(judge, {"policy": True})
