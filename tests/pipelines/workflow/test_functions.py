"""Rewards of a user's own in a workflow: named like the shipped ones, never where they come from."""

import pytest
from reward_package import install

from pipelines.host.errors import ConfigError
from pipelines.workflow import loading, yaml_reader

pytestmark = pytest.mark.no_backend

MORE = (
    "with settings, {function: NAME, ...}: regular_expression, length, repetition, json_schema, code_tests; "
    "one of your own by --plugin FILE.py"
)
WORKFLOW = """\
name: own
model: google/gemma-3-270m
stages:
  sft:
    kind: instruction_tuning
    data: {path: a/b, completion: answer}
  preferences:
    kind: preference_collection
    from: sft
    data: {path: a/b}
    rater: polite
  best:
    kind: best_of_n
    from: sft
    reward: function:polite
    data: {path: a/b}
  policy:
    kind: policy_optimization
    from: sft
    reward: [{reward: polite}, {reward: brief, weight: 0.5}, {reward: answer_format}]
    data: {path: a/b}
  evaluation:
    kind: evaluation
    compare: [sft, policy]
    data: {path: a/b}
    judge: brief
"""
PLUGIN = "def polite(completions): pass\n\ndef brief(completions): pass\n\ndef unused(completions): pass\n"


@pytest.fixture
def load(tmp_path):
    def load(text=WORKFLOW, plugin=PLUGIN, overrides=()):
        path, file = tmp_path / "w.yaml", tmp_path / "mine.py"
        path.write_text(text)
        file.write_text(plugin or "")
        return loading.load(path, overrides, plugins=[file] if plugin else ())

    return load


def errors(load, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **options)
    return str(caught.value).splitlines()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes an installed package of rewards with these names."""

    def package(*names):
        source = {"brought_rewards.py": "raise RuntimeError('imported')\n"}
        install(tmp_path / "site", monkeypatch, source, {name: f"brought_rewards:{name}" for name in names})

    return package


def test_they_are_named_like_the_shipped_ones_and_stand_behind_function(load, tmp_path):
    loaded = load()
    stages = loaded.workflow.stages
    assert (stages["preferences"].rater, stages["best"].reward) == ("function:polite", "function:polite")
    assert [part.reward for part in stages["policy"].reward] == ["function:polite", "function:brief", "answer_format"]
    assert stages["evaluation"].judge == "function:brief"
    assert {name: one.origin for name, one in loaded.user_functions.items()} == {
        "polite": f"{tmp_path / 'mine.py'}:1",
        "brief": f"{tmp_path / 'mine.py'}:3",
    }


def test_an_override_may_name_one(load):
    text = WORKFLOW.replace("reward: function:polite", "reward: answer_format")
    loaded = load(text, overrides=["stages.best.reward=unused"])
    assert loaded.workflow.stages["best"].reward == "function:unused" and "unused" in loaded.user_functions


def test_the_run_folder_s_copy_is_the_same_workflow_and_asks_for_the_file_too(load):
    loaded = load()
    copy = yaml_reader.dump(loaded.as_data())
    assert load(copy).workflow == loaded.workflow
    lines = errors(load, copy, plugin=None)
    assert len(lines) == 5
    ending = f"Known: gold, exact_answer, answer_format; {MORE}"
    assert lines[1].endswith(f": unknown reward function 'function:polite'. {ending}")


def test_without_the_file_each_name_is_told_and_how_to_bring_it_along(load):
    lines = errors(load, plugin=None)
    assert len(lines) == 5
    assert lines[0].endswith(
        f"w.yaml:11:12: unknown rater 'polite'. Known: gold, exact_answer, answer_format, reward_model:<stage>; {MORE}"
    )
    assert lines[2].endswith(
        "w.yaml:20:23: 'polite' is neither an earlier stage nor a model folder. Stages: none, or a function: gold, "
        f"exact_answer, answer_format; {MORE}"
    )


def test_a_slip_of_the_pen_finds_them(load):
    lines = errors(load, WORKFLOW.replace("judge: brief", "judge: breif").replace("reward: brief", "reward: breif"))
    assert "'breif' is neither an earlier stage nor a model folder. Did you mean 'brief'?" in lines[0]
    assert lines[0].endswith("gold, exact_answer, answer_format, polite, brief, unused; " + MORE)
    assert "unknown rater 'breif'. Did you mean 'brief'?" in lines[1]


def test_gold_stays_what_it_is(load):
    lines = errors(load, WORKFLOW.replace("function:polite", "function:gold"))
    assert "unknown reward function 'function:gold'" in lines[0]


@pytest.mark.parametrize("plugin", ["def policy(completions): pass\n", "\ndef policy(completions): pass\n"])
def test_a_name_that_is_a_stage_too(load, plugin, tmp_path):
    """Where the stage is, whether or not anything names the reward."""
    line = 1 + plugin.count("\n\n") + (plugin[0] == "\n")
    lines = errors(load, WORKFLOW, plugin + PLUGIN)
    place = f"{tmp_path / 'mine.py'}:{line}"
    assert lines == [
        f"{tmp_path / 'w.yaml'}:17:3: stage 'policy' has the name of the reward at {place}; rename one of them"
    ]


def test_a_name_that_is_shipped_too(load):
    (line,) = errors(load, WORKFLOW, PLUGIN + "def exact_answer(completions): pass\n")
    assert "mine.py:6: the reward 'exact_answer' has the name of a shipped one; give it another" in line


def test_a_model_s_name_is_never_a_function(load, tmp_path):
    """`compare` takes policies alone."""
    (line,) = errors(load, WORKFLOW.replace("compare: [sft, policy]", "compare: [sft, polite]"))
    assert "'polite' is neither an earlier stage nor a model folder. Did you mean 'policy'? Stages: sft, policy" in line
    assert "function" not in line


def test_an_installed_package_brings_rewards_along_without_a_plugin(load, package):
    package("polite", "brief", "policy")
    loaded = load(plugin=None)
    assert loaded.workflow.stages["evaluation"].judge == "function:brief"
    assert loaded.user_functions["brief"].entry_point == "brought_rewards:brief"
    assert set(loaded.user_functions) == {"polite", "brief"}


def test_a_file_stands_before_a_package(load, package, tmp_path):
    package("polite")
    assert load().user_functions["polite"].file == str(tmp_path / "mine.py")


@pytest.mark.parametrize(("name", "what"), [("answer_format", "a shipped reward"), ("sft", "a stage")])
def test_a_package_s_name_that_means_two_things_is_refused_where_it_is_used(load, package, name, what):
    package(name)
    text = WORKFLOW.replace("function:polite", name)
    lines = errors(load, text)
    assert lines[0].endswith(
        f"w.yaml:15:13: {name!r} is {what}, and brought 1.0 has a reward {name!r} too (brought_rewards:{name}); rename "
        "it there, or remove the package"
    )
    assert load(WORKFLOW.replace(", {reward: answer_format}", "")).workflow.name == "own"


LOOP = """\
name: own
model: google/gemma-3-270m
stages:
  loop:
    kind: repeat
    times: 2
    stages:
      pairs:
        kind: preference_collection
        data: {path: a/b}
        rater: polite
      tuned:
        kind: instruction_tuning
        data: {path: a/b, completion: answer}
"""


def test_stages_of_a_loop_name_them_too(load, tmp_path):
    stages = load(LOOP).workflow.stages
    assert [stages[f"loop_{round}_pairs"].rater for round in (1, 2)] == ["function:polite"] * 2
    assert errors(load, LOOP, plugin=None)[0].startswith(
        f"{tmp_path / 'w.yaml'}:11:16: unknown rater 'polite'. Known: "
    )
    (line,) = errors(load, LOOP, PLUGIN + "\ndef tuned(completions): pass\n")
    assert line == (
        f"{tmp_path / 'w.yaml'}:12:7: stage 'tuned' has the name of the reward at {tmp_path / 'mine.py'}:7; rename one "
        "of them"
    )
