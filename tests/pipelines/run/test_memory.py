"""Which model each stage of a workflow plans for, and what the shipped recipes say of themselves."""

import json
import re

import pytest

from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig
from pipelines import cli
from pipelines.host.errors import ConfigError
from pipelines.host.paths import shipped_workflows
from pipelines.memory.usage import GIB
from pipelines.run import keys, runner
from pipelines.run.memory import SPARE, plan_memory, remedies, shortages
from pipelines.workflow.loading import load

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: sizes
backend: jax
model: {model}
stages:
  sft:
    kind: instruction_tuning
    data: {{path: rows.jsonl, prompt: p, completion: c}}
  preferences:
    kind: preference_collection
    from: sft
    data: {{path: rows.jsonl, prompt: p, answer: c}}
    rater: exact_answer
  reward:
    kind: reward_modeling
    from: sft
    data: preferences
  policy:
    kind: policy_optimization
    from: sft
    reward: [{{reward: reward}}, {{reward: exact_answer, weight: 2.0}}]
    data: {{path: rows.jsonl, prompt: p, answer: c}}
  best:
    kind: best_of_n
    from: policy
    reward: reward
    data: {{path: rows.jsonl, prompt: p}}
  evaluation:
    kind: evaluation
    compare: [sft, policy]
    judge: reward_model:reward
    data: {{path: rows.jsonl, prompt: p}}
"""
FLOAT = 4 * PUBLISHED_SIZES["gemma3_270m"].parameter_count


@pytest.fixture
def planned(tmp_path):
    def plan(model, *settings):
        (tmp_path / "w.yaml").write_text(WORKFLOW.format(model=model))
        return {one.stage: one for one in plan_memory(load(tmp_path / "w.yaml", settings))}

    return plan


@pytest.mark.parametrize("name", ["google/gemma-3-270m", "gemma3_270m", "gemma3_instruct_270m_text"])
def test_the_models_that_stand_in_each_stage(planned, name):
    found = {stage: (one.peak.weights, one.peak.moments, one.peak.frozen) for stage, one in planned(name).items()}
    assert found == {
        "sft": (FLOAT, 2 * FLOAT, 0),
        "preferences": (FLOAT, 0, 0),
        "reward": (FLOAT, 2 * FLOAT, 0),
        "policy": (FLOAT, 2 * FLOAT, 2 * FLOAT),  # the reward model and the reference
        "best": (FLOAT, 0, FLOAT),
        "evaluation": (FLOAT, 0, 2 * FLOAT),  # the policy and the reward model, beside the reference
    }


def test_what_cannot_stand_is_said_with_its_place(planned, tmp_path):
    """In full tuning 16 bytes a parameter stand, in the policy stage two more models of 4 bytes; and a part of a second
    sum of gradients."""
    planned("gemma3_270m")
    loaded, names = load(tmp_path / "w.yaml"), ["sft", "preferences", "policy"]
    assert shortages(loaded, names, 7 * FLOAT) == []
    (line,) = shortages(loaded, names, 6 * FLOAT)
    assert line.startswith(f"{tmp_path}/w.yaml:") and "policy: weights, gradients, moments and frozen models" in line
    assert f"GiB; this machine has {6 * FLOAT / 2**30:.1f}" in line
    assert [one.split(": ")[1] for one in shortages(loaded, names, 4 * FLOAT - 1)] == ["sft", "policy"]


def test_sizes_that_would_have_to_be_fetched_are_passed_over(planned, tmp_path, hub_stand_in):
    planned("google/gemma-3-270m")
    assert shortages(load(tmp_path / "w.yaml", ["model=somebody/model"]), ["sft"], 1) == []
    assert hub_stand_in.asked == []


def test_a_run_begins_nothing_that_cannot_stand(planned, tmp_path, monkeypatch):
    planned("gemma3_270m")
    monkeypatch.setattr(runner, "total_memory", lambda: 6 * FLOAT)
    monkeypatch.setattr(keys, "machine", lambda backend: {"accelerator": "cpu"})
    with pytest.raises(ConfigError, match="policy: weights, gradients.*Set lora or a smaller model"):
        runner.run(load(tmp_path / "w.yaml", [], "jax"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("stages/*"))


def test_every_member_of_an_ensemble_stands(tmp_path):
    more = "".join(f"  {one}: {{kind: reward_modeling, from: sft, data: preferences}}\n" for one in ("second", "third"))
    ensemble = "{ensemble: [reward, second, reward_model:third]}"
    text = WORKFLOW.format(model="gemma3_270m").replace("  policy:\n", f"{more}  policy:\n")
    text = text.replace("[{reward: reward}, {reward: exact_answer, weight: 2.0}]", ensemble)
    text = text.replace("    reward: reward\n", f"    reward: {ensemble}\n")
    (tmp_path / "w.yaml").write_text(text.replace("judge: reward_model:reward", f"judge: {ensemble}"))
    found = {one.stage: one.peak.frozen for one in plan_memory(load(tmp_path / "w.yaml"))}
    assert (found["policy"], found["best"]) == (4 * FLOAT, 3 * FLOAT)  # of the former one is the reference
    assert found["evaluation"] == 4 * FLOAT  # one is the policy


def test_a_reward_model_by_set_stands_alone(tmp_path):
    sets = "[{name: a, data: preferences}]"
    bench = f"  bench: {{kind: reward_evaluation, reward: reward_model:reward, sets: {sets}}}\n"
    (tmp_path / "w.yaml").write_text(WORKFLOW.format(model="gemma3_270m") + bench)
    exact, rough = (
        {one.stage: one for one in plan_memory(load(tmp_path / "w.yaml", settings))}["bench"].peak
        for settings in ([], ["stages.bench.quantize_reward_model=int8", "stages.bench.micro_batch_size=8"])
    )
    assert (exact.weights, exact.frozen, exact.moments) == (FLOAT, 0, 0)
    assert rough.weights < FLOAT and 0 < rough.activations < exact.activations


def test_half_precision_and_adapters(planned):
    settings = [f"stages.{stage}.dtype=mixed_bfloat16" for stage in ("policy", "evaluation")]
    found = planned("gemma3_270m", *settings, "stages.policy.lora={rank: 4}")
    assert found["policy"].peak.frozen == found["evaluation"].peak.weights == FLOAT / 2
    assert found["policy"].peak.moments < FLOAT / 20


def test_a_copy_for_rollouts_stands_beside_the_policy(planned):
    kernels = 18 * 640 * (4 * 256 + 2 * 256 + 4 * 256 + 3 * 2048)
    for dtype, taken in (("bfloat16", FLOAT / 2), ("int8", FLOAT - 3 * kernels)):
        found = planned("gemma3_270m", f"stages.policy.rollout_dtype={dtype}")
        assert found["policy"].peak.frozen == 2 * FLOAT + taken


def test_a_model_of_values_stands_beside_the_policy_with_its_moments(planned):
    plain, valued = (
        planned("gemma3_270m", f"stages.policy.algorithm={name}")["policy"].peak for name in ("rloo", "ppo")
    )
    assert valued.frozen == plain.frozen + 3 * FLOAT and valued.moments == plain.moments


def test_sizes_of_a_folder(planned, tmp_path):
    sizes = {
        "model_type": "gemma", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    }  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text(json.dumps(sizes))
    config = GemmaConfig(
        vocabulary_size=100, hidden_dim=8, intermediate_dim=16, num_layers=2, num_query_heads=2, num_key_value_heads=1,
        head_dim=4,
    )  # fmt: skip
    assert planned("./mine")["policy"].peak.weights == 4 * config.parameter_count


def test_sizes_that_nobody_knows_have_a_place(planned, tmp_path):
    with pytest.raises(ConfigError, match=r"w.yaml:3:8: the sizes of 'nobody/nothing' are not known: nobody/nothing: "):
        planned("nobody/nothing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"w.yaml:3:8: .*`model_type` must be one of"):
        planned("./mine")


def test_remedies_are_computed_and_those_that_keep_the_result_come_first(tmp_path):
    (tmp_path / "w.yaml").write_text(WORKFLOW.format(model="gemma3_1b"))
    loaded = load(tmp_path / "w.yaml")
    found = remedies(loaded, "sft", 24 * GIB)
    assert [one.keeps_result for one in found] == sorted((one.keeps_result for one in found), reverse=True)
    for remedy in found[:2]:
        changed = load(tmp_path / "w.yaml", [f"stages.sft.{remedy.text.replace(': ', '=')}"])
        assert remedy.total == plan_memory(changed)[0].peak.total < plan_memory(loaded)[0].peak.total
    assert {one.text for one in found} >= {"remat: block", "lora: {rank: 16}, dtype: bfloat16"}


def test_the_command_says_what_does_not_fit_where_and_what_helps(tmp_path, capsys):
    file = tmp_path / "w.yaml"
    file.write_text(WORKFLOW.format(model="gemma_2b"))
    assert cli.main(["plan", str(file), "--memory"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "GiB at most while weights gradients moments frozen cache activations logits sum".split()
    assert [line.split()[0] for line in lines[1:7]] == ["sft", "preferences", "reward", "policy", "best", "evaluation"]
    for line in lines[1:7]:
        *parts, total = map(float, re.findall(r"\d+\.\d\d", line))
        assert total == pytest.approx(sum(parts), abs=0.04)
    assert cli.main(["plan", str(file), "--memory", "24GB"]) == 2
    text = capsys.readouterr().out
    assert f"{file}:6:5: sft needs " in text and "over the 20.4 GiB that 24 leave with 15% to spare" in text
    assert "all weights cannot be trained there. Set lora." in text
    assert cli.main(["plan", str(file), "--memory", "4000"]) == 0
    assert "Every stage fits" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["0", "-3", "inf", "many"])
def test_a_size_that_is_none(wrong, capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", "w.yaml", f"--memory={wrong}"])
    assert f"expected GiB of a device such as 24 or 24GiB, got '{wrong}'" in capsys.readouterr().err


RECIPES = [
    pytest.param(path, command, id=name)
    for name, path in shipped_workflows().items()
    for command in re.findall(r"^# .*`gemma-keras (plan \S+ --memory \d+)`", path.read_text(), re.M)
]


def test_full_tuning_and_adapters_have_their_cards():
    cards = [re.search(r"--memory (\d+)", param.values[1])[1] for param in RECIPES]
    assert sorted(cards) == ["24", "40", "80"]


@pytest.mark.parametrize(("path", "command"), RECIPES)
def test_a_recipe_fits_the_card_that_it_names(path, command):
    """With 15 % to spare on the backends that train on a GPU, and with the figure that its header gives."""
    _, file, card = re.fullmatch(r"(plan) (\S+) --memory (\d+)", command).groups()
    assert file == path.name
    planned = [stage.peak.total for backend in ("jax", "torch") for stage in plan_memory(load(path, (), backend))]
    assert max(planned) <= (1 - SPARE) * float(card) * GIB
    assert f"at most {max(planned) / GIB:.1f} GiB" in path.read_text()
