"""Stages that score with a function of a user's own: it trains, rates and judges as the shipped ones do."""

import json
import math

import numpy as np
import pytest
from policy_fixture import OPTIONS, prompts_of, rollout_of, world_model
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from pipelines.host.errors import DataError
from pipelines.plugins.sources import functions_in
from pipelines.run import keys, stage_main
from pipelines.scoring.base import part_means
from pipelines.scoring.raters import FunctionRater, RaterSettings, UserRater, WeightedRater, make_rater

SOURCE = """\
def even(prompts, completions, completion_ids, level, **kwargs):
    assert prompts[0] != completions[0] and len(prompts) == len(level)
    return [sum(one % 2 == 0 for one in ids) / len(ids) for ids in completion_ids]

def hard_only(completions, level, answer, **kwargs):
    return [1.0 if one == "hard" else None for one in level]

def never(completions, **kwargs):
    return [None for _ in completions]

def broken(completions, **kwargs):
    return [float("nan")] * len(completions)

def brief(completion_ids, **kwargs):
    return [-len(ids) for ids in completion_ids]
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return functions_in([tmp_path / "mine.py"], ())


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("inputs") / "sft", scale=4.0, stop_scale=5.0)


@pytest.fixture
def rows(tmp_path):
    """12 prompts; every third is hard."""
    rows = [{"prompt": f"{i} red dogs", "answer": str(i), "level": "easy" if i % 3 else "hard"} for i in range(12)]
    return {"path": write_jsonl(tmp_path / "rows.jsonl", rows)}


def settings():
    return RaterSettings("float32", None, None, 4, 300)


@pytest.mark.once
def test_a_step_is_trained_on_it_in_a_stage_as_the_runner_starts_one(own, sft, rows, tmp_path):
    """From `stage.json` to the metrics; the parts are logged, one that does not apply where it does."""
    options = {**OPTIONS, "steps": 1, "eval_every": 0, "eval_prompts": 3, "prompts_per_step": 3, "gold": None}
    reward = [{"reward": "function:even"}, {"reward": "function:hard_only", "weight": 0.5}]
    config = {"kind": "policy_optimization", "from": "sft", "reward": reward, **options, "data": rows}
    output = tmp_path / "stages" / ".policy.partial"
    output.mkdir(parents=True)
    about = {
        "name": "policy", "kind": "policy_optimization", "backend": "any", "config": config, "seed": 11, "model": None,
        "inputs": {"sft": str(sft)}, "base_folder": str(tmp_path),
        "user_functions": {name: vars(one) for name, one in own.items()},
        "key": "k", "versions": {}, "read": {}, "fewer_rows": None,
        "key_parts": {"code": keys.code_digest(), "backend": "any",
                      **dict.fromkeys(("versions", "machine", "inputs", "data"), {})},
        "state": {"every_seconds": 30.0, "keep": 2, "last": False},
        "state_key": "0" * 64,
    }  # fmt: skip
    (output / "stage.json").write_text(json.dumps(about))
    stage_main.execute(output, quiet=True)
    final = json.loads((output / "final.json").read_text())
    assert final["reward_source"] == "1 function:even + 0.5 function:hard_only"
    metrics = read_jsonl(output / "metrics.jsonl")
    (step,) = [row for row in metrics if "policy_loss" in row]
    assert 0 <= step["rewards/even/mean"] <= 1 and step["grad_norm"] > 0
    # Of the three prompts a step some are hard: 1 where it applies, and a half of their share in the sum.
    share = (step["reward"] - step["rewards/even/mean"]) / 0.5
    assert step["rewards/hard_only/mean"] == 1 or math.isnan(step["rewards/hard_only/mean"])
    assert min(abs(share - k / 3) for k in range(4)) < 1e-6
    assert (share > 0.1) == (step["rewards/hard_only/mean"] == 1)


@pytest.mark.once
@pytest.mark.parametrize(("kind", "key"), [("preference_collection", "rater"), ("best_of_n", "reward")])
def test_it_rates_and_chooses(kind, key, own, sft, rows, tmp_path):
    from pipelines.stages.registry import stage_function

    context = make_context(tmp_path, "stage", inputs={"sft": sft})
    context.user_functions = own
    config = stage_config(
        kind, **{"from": "sft", key: "function:brief", "data": rows, "max_new_tokens": 6, "max_length": 96}
    )
    final = stage_function(kind)(config, context)
    assert "function:brief" in json.dumps(final)


def test_names_resolve_to_a_user_s_function_first(own, tmp_path):
    context = make_context(tmp_path, "policy")
    context.user_functions = own
    found = [
        make_rater(name, context, settings()) for name in ("function:even", "function:exact_answer", "answer_format")
    ]
    assert [type(one) for one in found] == [UserRater, FunctionRater, FunctionRater]
    assert (found[0].name, found[0].source, found[0].bounds) == ("even", "function:even", None)


@pytest.fixture
def scored():
    prompts = prompts_of([[2], [2], [2]], ["1", "2", "3"]).examples
    for prompt, level in zip(prompts, ("hard", "easy", "hard"), strict=True):
        prompt.columns["level"] = level
    return prompts, rollout_of([[2]] * 3, [[4], [5, 6], [7]], [True] * 3, ["#### 1", "2", "3"])


def test_what_does_not_apply_counts_nothing_in_a_sum(own, scored):
    rater = WeightedRater([UserRater(own["hard_only"]), FunctionRater("answer_format")], [2.0, -3.0])
    scores = rater.score(*scored)
    assert scores.total.tolist() == [2 - 3, 0, 2]
    assert np.isnan(scores.parts["hard_only"]).tolist() == [False, True, False]
    assert part_means(scores.parts) == {
        "rewards/hard_only/mean": 1.0, "rewards/answer_format/mean": pytest.approx(1 / 3),
    }  # fmt: skip
    assert rater.bounds is None
    assert math.isnan(part_means({"x": np.array([np.nan])})["rewards/x/mean"])


def test_a_response_that_nothing_scores_is_named(own, scored):
    message = (
        r"^data.jsonl:2: the reward 'hard_only' \(\S+mine.py:5\) is None for a response to the prompt 'prompt 1', so "
        r"nothing scores it\. Expected a number, or in a sum another part that applies\.$"
    )
    with pytest.raises(DataError, match=message):
        UserRater(own["hard_only"]).score(*scored)
    both = WeightedRater([UserRater(own["hard_only"]), UserRater(own["never"])], [1.0, 1.0])
    with pytest.raises(
        DataError, match=r"^data.jsonl:2: the reward '1 function:hard_only \+ 1 function:never' is None"
    ):
        both.score(*scored)


def test_nan_is_an_error_in_a_sum_too(own, scored):
    both = WeightedRater([FunctionRater("answer_format"), UserRater(own["broken"])], [1.0, 1.0])
    with pytest.raises(DataError, match=r"data.jsonl:1: the reward 'broken' \(\S+mine.py:11\) is nan for the response"):
        both.score(*scored)
