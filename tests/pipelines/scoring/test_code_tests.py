"""Programs in responses as a reward: what a row must bring, what is graded, and what a workflow says of it."""

import pytest
from policy_fixture import OPTIONS, rollout_of, world_model
from sandboxes import needs_a_sandbox
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from pipelines.data.columns import Prompt
from pipelines.graders.code.sandbox import SandboxError
from pipelines.host.errors import ConfigError, DataError, InternalError
from pipelines.schema.functions import FUNCTIONS
from pipelines.scoring import code_tests
from pipelines.scoring.code_tests import CodeRater
from pipelines.scoring.raters import RaterSettings, WeightedRater, make_rater
from pipelines.stages.registry import stage_function

# Runs no backend, though raters are of a room that loads one.
pytestmark = pytest.mark.once
RIGHT, WRONG = "def f(x):\n    return x + 1\n", "def f(x):\n    return x\n"
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


def settings(**given):
    return FUNCTIONS["code_tests"].model_validate({"function": "code_tests", **given})


def score(answers, row, **given):
    prompts = [Prompt("Add one.", None, f"data.jsonl:{line}", columns=row) for line in range(1, len(answers) + 1)]
    rollout = rollout_of([[2]] * len(answers), [[5, 1]] * len(answers), [True] * len(answers), list(answers))
    return CodeRater(settings(**given)).score(prompts, rollout).total.tolist()


@needs_a_sandbox
@pytest.mark.parametrize(
    ("row", "given"),
    [
        ({"tests": "assert f(1) == 2"}, {}),
        ({"tests": ["assert f(1) == 2", "assert f(2) == 3"], "entry_point": None}, {}),
        ({"tests": CHECK, "entry_point": "f"}, {}),
        ({"test": CHECK, "name": "f"}, {"tests": "test", "entry_point": "name", "sandbox": "auto", "seconds": 3}),
    ],
)
def test_a_response_earns_1_where_its_program_passes(row, given):
    answers = [RIGHT, WRONG, f"Sure:\n```python\n{RIGHT}```", f"```\n{WRONG}```", "I do not know.", ""]
    assert score(answers, row, **given) == [1, 0, 1, 0, 0, 0]


@needs_a_sandbox
def test_a_response_may_go_on_from_the_programs_beginning():
    row = {
        "prompt": "def two():\n    return 2\n\n\ndef f(x):\n    '''Add one.'''\n",
        "tests": CHECK,
        "entry_point": "f",
    }
    row["tests"] += "    assert candidate(two()) == 3\n"
    answers = ["    return x + two() - 1\n", "    return x\n", f"{RIGHT}\ndef two(): return 0\n"]
    assert score(answers, row, program="prompt") == [1, 0, 1]


@needs_a_sandbox
def test_it_adds_up_with_others(tmp_path):
    part = settings(name="right")
    rater = make_rater(part, None, RaterSettings("float32", None, None, 4, 300))
    assert (rater.name, rater.bounds) == ("right", (0, 1))
    assert rater.source == (
        'function:code_tests(tests="tests", entry_point="entry_point", sandbox="auto", seconds=5.0)'
    )
    assert WeightedRater([rater], [2.0]).bounds == (0, 2)


@needs_a_sandbox
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, r"^data.jsonl:1: .*needs the column 'tests': expected tests, a text or a list of texts, got None"),
        ({"tests": []}, r"got \[\]. The row has: tests\.$"),
        ({"tests": ["assert f(1)", 1]}, r"got \['assert f"),
        ({"tests": CHECK, "entry_point": 3}, r"needs the column 'entry_point': expected a text, got 3"),
        ({"tests": CHECK}, r"^data.jsonl:1: .*give `entry_point`"),
        ({"tests": "assert"}, r"^data.jsonl:1: The tests are no Python"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(row, said):
    with pytest.raises(DataError, match=said):
        score([RIGHT], row)


def test_without_a_sandbox_nothing_starts(monkeypatch):
    def refuse(*_):
        raise SandboxError("No sandbox here.")

    monkeypatch.setattr(code_tests, "choose", refuse)
    with pytest.raises(ConfigError, match="^The reward 'code_tests': No sandbox here.$"):
        CodeRater(settings())
    monkeypatch.setattr(code_tests, "choose", lambda name: "unshare")
    monkeypatch.setattr(code_tests, "grade_code", refuse)
    with pytest.raises(InternalError, match="no sandbox started: No sandbox here."):
        score([RIGHT], {"tests": "assert f(1) == 2"})


def test_none_must_be_written():
    assert settings().sandbox == "auto" and settings(sandbox="none").sandbox == "none"
    assert score([RIGHT, WRONG], {"tests": "assert f(1) == 2"}, sandbox="none") == [1, 0]


@needs_a_sandbox
@pytest.mark.parametrize(("body", "least", "most"), [("x + 1", 0.5, 1), ("x + 2", 0, 0)])
def test_a_policy_is_trained_on_it(body, least, most, tmp_path):
    """Of rows in a file. What the model writes goes on behind `#`, so that the program is known."""
    sft = world_model(tmp_path / "sft", scale=4.0, stop_scale=5.0)
    program = f"def f(x):\n    return {body}\n# "
    rows = [{"prompt": f"{i} red dogs", "code": program, "test_list": [f"assert f({i}) == {i + 1}"]} for i in range(9)]
    reward = {"function": "code_tests", "tests": "test_list", "program": "code"}
    changes = {
        "from": "sft", "data": {"path": write_jsonl(tmp_path / "rows.jsonl", rows)}, "steps": 1, "eval_every": 0,
        "eval_prompts": 3, "prompts_per_step": 3, "gold": None, "reward": [{"reward": reward, "weight": 2}],
    }  # fmt: skip
    config = stage_config("policy_optimization", **{**OPTIONS, **changes})
    context = make_context(tmp_path, "policy", inputs={"sft": sft})
    final = stage_function("policy_optimization")(config, context)
    (step,) = [row for row in read_jsonl(context.output / "metrics.jsonl") if "policy_loss" in row]
    # A line break, or a byte that no source may have, fails a right one here and there.
    assert least <= step["rewards/code_tests/mean"] <= most
    assert step["reward"] == pytest.approx(2 * step["rewards/code_tests/mean"])
    assert final["reward_source"].startswith('2 function:code_tests(tests="test_list"')
