"""A policy stage that is asked for more steps after it has ended, and the models that it saves on its way: the longer
one ends with the bits of one that made all steps at once."""

import hashlib
import json
import os

import pytest
from policy_fixture import world_model
from stage_fixture import read_jsonl

from gemma_keras import GemmaCausalLM
from pipelines.data.contents import SeenPrompts
from pipelines.run import planning, results, runner
from pipelines.workflow import loading

pytestmark = pytest.mark.once
TIMES = ("step_time", "tokens_per_second", "model_flops_utilization")
WORKFLOW = """\
name: longer
seed: 11
stages:
  policy:
    kind: policy_optimization
    from: sft
    reward: {function: length, at_most: 4, unit: tokens, fade: 2}
    data: {task: small_world, split: rl, size: 30}
    algorithm: reinforce
    kl_target: 0.1
    schedule: constant
    warmup_steps: 2
    learning_rate: 0.02
    steps: 3
    prompts_per_step: 4
    samples_per_prompt: 2
    max_new_tokens: 6
    temperature: 0.7
    max_length: 96
    eval_every: 2
    eval_prompts: 6
    save_every: 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longer")
    world_model(folder / "sft", seed=9, scale=4.0, stop_scale=5.0)
    (folder / "w.yaml").write_text(WORKFLOW)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A function that runs the workflow in this process; returns what was said."""

    def run(out, *overrides):
        said, loaded = [], loading.load(folder / "w.yaml", overrides, os.environ["KERAS_BACKEND"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "write_results", lambda folder: {})
            runner.run(loaded, folder / out, in_process=True, quiet=True, say=said.append)
        return said

    return run


@pytest.fixture(scope="module")
def longer(run, folder):
    """The folder of a stage of 3 steps that was then asked for 5, and what was said of both."""
    said = run("run"), run("run", "stages.policy.steps=5")
    return folder / "run", said


def found(stage):
    """Digests of models and samples, figures but times."""
    files = sorted(path for path in stage.rglob("*") if path.is_file() and path.parent != stage)
    digests = {path.relative_to(stage).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    rows = [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in read_jsonl(stage / "metrics.jsonl")]
    return digests, rows, (stage / "samples.jsonl").read_text(), json.loads((stage / "final.json").read_text())


def test_it_goes_on_with_equal_bits(longer, run, folder):
    place, (first, second) = longer
    assert "because missing" in first[0] and "going on at 3 of 5 steps" in second[0]
    run("at_once", "stages.policy.steps=5")
    one, other = found(place / "stages/policy"), found(folder / "at_once/stages/policy")
    assert one == other
    assert len({row["reward"] for row in one[1] if "reward" in row}) > 2 and one[3]["kl"] > 0
    models = {name.removesuffix("/config.json") for name in one[0] if name.endswith("/config.json")}
    assert models == {"model", "snapshots/2/model", "snapshots/4/model"}
    # Step 3 was the shorter one's last, and was measured there alone.
    assert [row["step"] for row in one[1] if "eval_reward" in row] == [0, 2, 4, 5]
    kept = list((place / "kept").glob("policy-????????"))
    assert [row["step"] for row in read_jsonl(kept[0] / "metrics.jsonl") if "eval_reward" in row] == [0, 2, 3]


def test_nothing_of_the_way_is_left_in_the_finished_stage(longer):
    place, _ = longer
    assert not (place / "stages/policy/state").exists() and results.damage(place / "stages/policy", True) is None
    assert [path.name for path in (place / "stages").iterdir()] == ["policy"]


def test_a_model_saved_on_the_way_is_a_model(longer):
    """It has learned from the same prompts, and is none of those before and after it."""
    place, _ = longer
    stage = place / "stages/policy"
    models = [GemmaCausalLM.from_preset(one / "model") for one in (stage / "snapshots/2", stage / "snapshots/4", stage)]
    embeddings = [dict(model.backbone.named_arrays())["embedding"].tobytes() for model in models]
    assert len(set(embeddings)) == 3
    assert SeenPrompts.read(stage / "snapshots/2/model") == SeenPrompts.read(stage / "model")


def planned(folder, *overrides):
    loaded = loading.load(folder / "w.yaml", overrides, os.environ["KERAS_BACKEND"])
    (stage,) = planning.plan(loaded.workflow, loaded.base_folder, folder / "run")
    return stage


@pytest.mark.parametrize(
    ("overrides", "goes_on"),
    [
        (["steps=9"], True),
        (["steps=4"], False),  # it has made 5
        (["steps=9", "learning_rate=0.5"], False),
        (["steps=9", "schedule=linear"], False),
        (["steps=9", "warmup_steps=null", "warmup_fraction=0.5"], False),  # of more steps: another warm-up
    ],
)
def test_it_goes_on_where_all_that_was_done_would_be_done_again(longer, folder, overrides, goes_on):
    stage = planned(folder, *(f"stages.policy.{one}" for one in overrides))
    assert stage.action == "run" and stage.resumes == goes_on
    if goes_on:
        assert str(stage.unfinished) == "5 of 9 steps"


def test_fewer_steps_again_are_taken_back(longer, run, folder):
    assert "taken back" in run("run")[0]
    assert "taken back" in run("run", "stages.policy.steps=5")[0]
