"""Loops: the stages that they become, and complaints that stand where the file has what is wrong."""

import pytest
import yaml

from pipelines.host.errors import ConfigError
from pipelines.workflow import loading, yaml_reader
from pipelines.workflow.loops import expand

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
model: google/gemma-3-270m
stages:
  sft:
    kind: instruction_tuning
    data: {path: a/b, prompt: p, completion: c}
  loop:
    kind: repeat
    times: 3
    from: sft
    stages:
      pairs: {kind: preference_collection, data: {task: small_world, split: preferences, size: 9}, rater: gold}
      reward: {kind: reward_modeling, from: sft, data: pairs}
      dpo: {kind: preference_optimization, data: pairs, loss: {name: dpo, beta: 0.2}}
  evaluation:
    kind: evaluation
    compare: [sft, loop_1_dpo, loop]
    data: {task: small_world, split: heldout, size: 9}
    judge: reward_model:loop_3_reward
"""


@pytest.fixture
def load(tmp_path):
    def load(text=WORKFLOW, *overrides, **options):
        path = tmp_path / "w.yaml"
        path.write_text(text)
        return loading.load(path, overrides, **options)

    return load


def complaints(load, tmp_path, old, new):
    assert old in WORKFLOW
    with pytest.raises(ConfigError) as caught:
        load(WORKFLOW.replace(old, new))
    return [line.removeprefix(f"{tmp_path}/w.yaml:") for line in str(caught.value).splitlines()]


def test_each_stage_of_each_round_is_a_stage_of_its_own(load):
    stages = load().as_data()["stages"]
    rounds = [f"loop_{i}_{one}" for i in (1, 2, 3) for one in ("pairs", "reward", "dpo")]
    assert list(stages) == ["sft", *rounds, "evaluation"]
    for number, start in ((1, "sft"), (2, "loop_1_dpo"), (3, "loop_2_dpo")):
        pairs, reward, dpo = (stages[f"loop_{number}_{one}"] for one in ("pairs", "reward", "dpo"))
        assert pairs["from"] == dpo["from"] == start and reward["from"] == "sft"
        assert reward["data"] == dpo["data"] == f"loop_{number}_pairs"
        assert dpo["loss"]["beta"] == 0.2
    assert stages["evaluation"]["compare"] == ["sft", "loop_1_dpo", "loop_3_dpo"]
    assert stages["evaluation"]["judge"] == "reward_model:loop_3_reward"


def test_what_is_written_out_is_the_same_workflow_again(load, tmp_path):
    loaded = load()
    (tmp_path / "again.yaml").write_text(yaml_reader.dump(loaded.as_data()))
    assert loading.load(tmp_path / "again.yaml").as_data() == loaded.as_data()


def test_without_from_the_first_round_starts_from_the_model_of_the_workflow(load):
    stages = load(WORKFLOW.replace("    from: sft\n", "")).as_data()["stages"]
    assert "from" not in stages["loop_1_dpo"] and stages["loop_2_dpo"]["from"] == "loop_1_dpo"


def test_set_reaches_into_a_loop(load):
    changed = "stages.loop.times=2", "stages.loop.stages.dpo.loss.beta=0.5"
    stages = load(WORKFLOW.replace("loop_3_reward", "loop_2_reward"), *changed).as_data()["stages"]
    assert "loop_3_dpo" not in stages and stages["loop_2_dpo"]["loss"]["beta"] == 0.5


def test_a_loop_after_a_loop_starts_where_that_one_ended(load):
    more = WORKFLOW.replace(
        "  evaluation:\n",
        "  more: {kind: repeat, times: 2, from: loop, stages: {tune: {kind: instruction_tuning, data: "
        "{path: a/b, prompt: p, completion: c}}}}\n  evaluation:\n",
    )
    stages = load(more).as_data()["stages"]
    assert (stages["more_1_tune"]["from"], stages["more_2_tune"]["from"]) == ("loop_3_dpo", "more_1_tune")


def test_seeds_from_a_loop_are_from_its_first_stage(load):
    loaded = load(WORKFLOW, seeds="17,18", seeds_from="loop")
    assert loaded.workflow.stages_run_once() == ["sft"]


def test_places_are_those_of_the_file(load):
    path = load().document.source
    loaded = load()
    assert loaded.where(("stages", "loop_2_dpo", "loss", "beta")) == f"{path}:14:81"
    assert loaded.where(("stages", "loop_1_pairs", "data", "split")) == f"{path}:12:77"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("times: 3", "times: 0", "9:12: `stages.loop.times`: expected greater than or equal to 1, got 0"),
        ("times: 3", "times: 101", "9:12: `stages.loop.times`: expected less than or equal to 100, got 101"),
        ("times: 3", "tims: 3", "9:5: unknown key 'tims'. Did you mean 'times'? Known here: kind, times, from, stages"),
        ("data: pairs, loss", "data: pairz, loss", "14:50: no stage 'pairz'. For a file write data: {path: pairz}"),
        ("beta: 0.2", "beta: -1", "14:81: `stages.loop.stages.dpo.loss.beta`: expected greater than 0, got -1"),
        ("from: sft\n    stages", "from: sfft\n    stages", "10:11: 'sfft' is neither an earlier stage nor a model"),
        ("loop_1_dpo, loop]", "dpo]", "17:20: 'dpo' is neither an earlier stage nor a model folder. Stages: sft,"),
        ("kind: preference_optimization", "kind: repeat", "14:19: a loop cannot hold another one; expected"),
        ("  sft:\n", "  loop_2_dpo:\n", "7:3: makes a stage 'loop_2_dpo', which there is; rename one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_once_where_it_stands(load, tmp_path, old, new, expected):
    lines = complaints(load, tmp_path, old, new)
    assert sum(line.startswith(expected) for line in lines) == 1, lines


def test_a_loop_whose_rounds_make_no_model_is_refused(load, tmp_path):
    dpo = next(line + "\n" for line in WORKFLOW.splitlines() if "dpo: {" in line)
    lines = complaints(load, tmp_path, dpo, "")
    assert lines[0] == (
        "11:5: no stage in it leaves a model for the next round; expected one, or its stages written by themselves"
    )


def test_what_is_no_loop_is_left_as_it_is():
    data = yaml.safe_load(WORKFLOW)
    del data["stages"]["loop"]
    assert expand(data).data == data and expand({"stages": 3}).data == {"stages": 3}
    assert expand(data).in_file(("stages", "sft", "data")) == ("stages", "sft", "data")
