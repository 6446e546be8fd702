"""Side by side: rates and intervals by hand, and the stage against dense logits."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from policy_fixture import dense_log_probs, rollout_of, world_model
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from gemma_keras import GemmaCausalLM
from gemma_keras.random import generator
from gemma_keras.text.chat import encode_pair, encode_prompt
from pipelines.data.columns import Prompt
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.measures.intervals import score_interval
from pipelines.measures.judges import compare, difference_with_interval, shuffled_outcomes
from pipelines.sampling.prompts import encode_prompts
from pipelines.scoring.raters import gold_rater
from pipelines.stages.evaluation import policy_measures
from pipelines.stages.evaluation import run as evaluation
from pipelines.stages.evaluation.policy_measures import Measured, PolicyResult
from pipelines.tasks import task

pytestmark = pytest.mark.once

SIZE = 10
DATA = {"task": "small_world", "split": "heldout", "size": SIZE}
OPTIONS = {"max_new_tokens": 6, "max_length": 96, "batch_size": 8, "samples_kept": 3}


def test_rates_by_hand():
    found = compare(np.array([1.0, 2, 3, 4]), np.array([0.0, 2 + 1e-9, 5, 1]), np.arange(4), 0, "s")
    assert (found["win_rate"], found["wins"], found["tie_rate"], found["loss_rate"]) == (0.625, 0.5, 0.25, 0.25)
    assert found["win_rate_ci95"] == list(score_interval([1.0, 0.5, 0.0, 1.0]))
    of_two_prompts = compare(np.array([1.0, 1, 3, 3]), np.zeros(4), np.array([0, 0, 1, 1]), 0, "s")
    assert of_two_prompts["win_rate_ci95"] == list(score_interval([1.0, 1.0]))


def test_twenty_wins_of_twenty_leave_room_for_a_loss():
    found = compare(np.ones(20), np.zeros(20), np.arange(20), 0, "s")
    assert found["win_rate"] == 1 and found["win_rate_ci95"] == [pytest.approx(0.8389, abs=1e-4), 1.0]


def test_differences_are_paired():
    """Scores that differ by 0.1 on every prompt and by 0.5 from prompt to prompt: the first is known well."""
    baseline = np.tile([0.2, 0.7], 30)
    nearly = baseline + np.repeat([0.09, 0.11], 30)
    found = difference_with_interval(nearly, baseline, np.arange(60), None)
    half = 2.0010 * 0.01 / 59**0.5  # Student's, of 59 degrees of freedom
    assert found["mean"] == pytest.approx(0.1) and found["ci95"] == pytest.approx([0.1 - half, 0.1 + half], abs=1e-5)
    assert difference_with_interval(baseline + 0.1, baseline, np.arange(60), None)["ci95"] is None
    bounded = difference_with_interval(baseline + 0.1, baseline, np.arange(60), (0.0, 1.0))
    assert bounded["ci95"] == pytest.approx(list(score_interval([0.1] * 60, (-1.0, 1.0))))
    wider = difference_with_interval(baseline + 0.1, baseline, np.arange(60), (-1.0, 2.0))
    assert wider["ci95"] == pytest.approx(list(score_interval([0.1] * 60, (-3.0, 3.0))))


def test_of_a_pair_the_later_policy_is_compared_with_the_earlier():
    def result(scores):
        return PolicyResult(None, {"judge_score": Measured(np.array(scores), (0.0, 1.0))}, {}, {})

    config = stage_config("evaluation", compare=["a", "b", "c"], data=DATA, **OPTIONS)
    context = SimpleNamespace(seed=0, name="s")
    results = {"a": result([0.0, 0.0]), "b": result([0.0, 1.0]), "c": result([1.0, 1.0])}
    found = evaluation._compare_all(results, np.arange(2), config, context)
    sides = {(pair["policy"], pair["baseline"]): pair for pair in found}
    assert list(sides) == [("b", "a"), ("c", "a"), ("c", "b")]
    assert [pair["win_rate"] for pair in found] == [0.75, 1, 0.75]
    assert [pair["difference"]["judge_score"]["mean"] for pair in found] == [0.5, 1, 0.5]


def test_the_first_shown_wins_as_often_as_it_does_among_decided_pairs():
    first_is_better = lambda first, second: np.where(first == second, 0.5, 1.0)  # noqa: E731
    policy, baseline = np.array([1.0, 1, 1, 1, 2, 3]), np.ones(6)
    assert shuffled_outcomes(policy, baseline, 0, "s", judge=first_is_better)[1] == 1
    assert shuffled_outcomes(baseline, baseline, 0, "s", judge=first_is_better)[1] is None


def test_the_order_is_shuffled_so_that_a_judge_of_positions_decides_nothing():
    policy, baseline = generator(0, "p").normal(size=2000), generator(0, "b").normal(size=2000)
    outcomes, first_wins = shuffled_outcomes(policy, baseline, 0, "s", judge=lambda first, second: np.ones(len(first)))
    assert outcomes.mean() == pytest.approx(0.5, abs=0.05) and first_wins == 1
    outcomes, first_wins = shuffled_outcomes(policy, baseline, 0, "s")
    assert outcomes.tolist() == (policy > baseline).astype(float).tolist() and first_wins == pytest.approx(
        0.5, abs=0.05
    )
    swapped, _ = shuffled_outcomes(baseline, policy, 0, "s")
    assert (outcomes + swapped == 1).all()


def hashes(split, size):
    return [prompt_hashes(Prompt(item.prompt, None, "", item)) for item in task("small_world").prompts(split, size, 11)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    found = {name: world_model(folder / name, seed=seed, scale=4.0) for name, seed in (("sft", 3), ("policy", 4))}
    SeenPrompts.of(hashes("sft", 30)).write(found["sft"] / "model")
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, inputs):
    context = make_context(tmp_path_factory.mktemp("run"), "evaluation", inputs=inputs)
    final = evaluation.run(
        stage_config("evaluation", compare=["sft", "policy"], data=DATA, judge="gold", **OPTIONS), context
    )
    return (
        final,
        json.loads((context.output / "evaluation.json").read_text()),
        read_jsonl(context.output / "samples.jsonl"),
    )


def test_the_file_has_its_shape_and_agrees_with_the_final_figures(finished):
    final, found, samples = finished
    assert list(found["policies"]) == ["sft", "policy"] and found["baseline"] == found["reference"] == "sft"
    (pair,) = found["pairs"]
    assert (pair["policy"], pair["baseline"]) == ("policy", "sft")
    assert final["win_rate"] == pair["win_rate"] == pytest.approx(pair["wins"] + pair["tie_rate"] / 2)
    assert pair["wins"] + pair["tie_rate"] + pair["loss_rate"] == pytest.approx(1)
    assert (found["judge"], found["prompts"], len(samples)) == ("gold", SIZE, 3)
    assert pair["difference"] == final["difference"] and set(pair["difference"]) == {
        "judge_score",
        "gold",
        "gold_parts",
    }
    sft, policy = (found["policies"][name] for name in ("sft", "policy"))
    for part in sft["gold_parts"]:
        difference = pair["difference"]["gold_parts"][part]
        means = [figures["gold_parts"][part]["mean"] for figures in (policy, sft)]
        assert difference["mean"] == pytest.approx(means[0] - means[1])
        assert -1 <= difference["ci95"][0] <= difference["mean"] <= difference["ci95"][1] <= 1
    # The judge is gold: the same scores have the same interval.
    assert sft["judge_score"] == sft["gold"] and pair["difference"]["judge_score"] == pair["difference"]["gold"]
    for figures in found["policies"].values():
        assert set(figures["gold_parts"]) == {"right", "refuses", "polite", "brief"}
        assert figures["gold"]["ci95"][0] <= figures["gold"]["mean"] <= figures["gold"]["ci95"][1]
        assert figures["accuracy"] is None


def test_gold_scores_are_those_of_the_samples(finished):
    _, found, samples = finished
    items = task("small_world").prompts("heldout", SIZE, 11)
    for item, sample in zip(items, samples, strict=False):
        assert sample["prompt"] == item.prompt and set(sample["completions"]) == {"sft", "policy"}
        possible = [
            task("small_world").gold_reward(item, sample["completions"]["sft"], finished).total
            for finished in (True, False)
        ]
        assert sample["scores"]["sft"] in possible


def test_prompts_that_were_trained_on_are_counted(finished, inputs, tmp_path):
    """Of a model that keeps no record nothing is known; a warning is one for the report too."""
    assert finished[1]["seen_elsewhere"] == {"sft": {"same_text": 0, "same_content": 0}, "policy": None}
    leaked = [dataclasses.replace(one, exact=("0",)) if i == 0 else one for i, one in enumerate(hashes("heldout", 4))]
    shutil.copytree(inputs["policy"], tmp_path / "policy")
    SeenPrompts.of(leaked).write(tmp_path / "policy" / "model")
    context = make_context(tmp_path, "evaluation", inputs={**inputs, "policy": tmp_path / "policy"})
    config = stage_config("evaluation", compare=["sft", "policy"], data=DATA, judge="gold", **OPTIONS)
    examples = context.examples(config.data, "prompt")
    found = context.seen_elsewhere(config, examples)
    assert found["policy"] == {"same_text": 3, "same_content": 4}
    assert context.warnings == [f"up to 4 of {SIZE} prompts were trained on by what is compared; see seen_elsewhere"]


def test_perplexity_is_that_of_the_dense_logits(finished, inputs):
    model = GemmaCausalLM.from_preset(inputs["policy"] / "model")
    total, tokens = 0.0, 0
    for item in task("small_world").prompts("heldout", SIZE, 11):
        example = encode_pair(model.tokenizer, item.prompt, item.demonstration)
        first = example.is_target.index(True)
        prompt, response = example.token_ids[:first], example.token_ids[first:]
        total -= dense_log_probs(model, prompt, response)[np.arange(len(response)), response].sum()
        tokens += len(response)
    assert finished[1]["policies"]["policy"]["perplexity"] == pytest.approx(np.exp(total / tokens), rel=1e-4)


def test_kl_is_that_of_the_dense_logits_at_the_sampling_temperature(inputs):
    """Two responses of different length: a mean over all tokens, and a mean over responses of their sums."""
    model, reference = (GemmaCausalLM.from_preset(inputs[name] / "model") for name in ("policy", "sft"))
    prompts, responses = [[2, 90, 91], [2, 100]], [[50, 60, 61, 1], [52, 62]]
    rollout = rollout_of(prompts, responses, [True, False], ["", ""])
    config = stage_config("evaluation", compare=["sft", "policy"], data=DATA, temperature=0.7, **OPTIONS)
    sums = []
    for prompt, response in zip(prompts, responses, strict=True):
        first, second = (dense_log_probs(one, prompt, response, temperature=0.7) for one in (model, reference))
        sums.append((np.exp(first) * (first - second)).sum())
    token_kl = policy_measures._token_kl(model, reference, rollout, config)
    assert policy_measures._kl(token_kl, rollout) == {
        "kl": pytest.approx(sum(sums) / 6, rel=1e-3),
        "kl_sequence": pytest.approx(sum(sums) / 2, rel=1e-3),
    }


def test_policies_are_sampled_independently(inputs, tmp_path):
    """One model under two names answers differently."""
    twins = {"sft": inputs["sft"], "twin": inputs["sft"]}
    context = make_context(tmp_path, "evaluation", inputs=twins)
    config = stage_config("evaluation", compare=["sft", "twin"], data=DATA, judge="gold", **OPTIONS)
    model = GemmaCausalLM.from_preset(inputs["sft"] / "model")
    prompts = encode_prompts(model.tokenizer, context.examples(config.data, "prompt"), 96, 6)
    gold = gold_rater(task("small_world"))
    first, second = (
        policy_measures.measure_policy(
            name, model, model, prompts, np.arange(SIZE), gold, None, config, context, context.progress(None, "")
        )
        for name in twins
    )
    assert first.rollout.texts != second.rollout.texts


def test_policies_compute_in_the_dtype_that_is_asked_for(inputs, tmp_path):
    config = stage_config("evaluation", compare=["sft"], data=DATA, dtype="mixed_bfloat16", **OPTIONS)
    model = evaluation._load("sft", config, make_context(tmp_path, "evaluation", inputs=inputs))
    assert model.backbone.dtype_policy.name == "map_bfloat16"


def test_kl_to_the_reference_is_zero_for_itself_only(finished):
    policies = finished[1]["policies"]
    assert (policies["sft"]["kl"], policies["sft"]["kl_sequence"]) == (0, 0)
    assert 0 < policies["policy"]["kl"] < policies["policy"]["kl_sequence"]


def test_greedy_answers_are_compared_by_a_function_with_their_accuracy(inputs, tmp_path):
    model = GemmaCausalLM.from_preset(inputs["sft"] / "model")
    prompts = ["first of: owl cap", "count: fig fig", "last of: owl cap"]
    expected = []
    for prompt in prompts:  # greedy by hand, from dense logits
        ids, response = encode_prompt(model.tokenizer, prompt), []
        while len(response) < 6 and not (response and response[-1] in model.tokenizer.stop_token_ids):
            response.append(int(dense_log_probs(model, ids, [*response, 0])[-1].argmax()))
        expected.append(model.tokenizer.decode(response))
    # Every prompt comes twice: six answers to three prompts.
    rows = [{"question": prompt, "solution": "7"} for prompt in prompts + prompts]
    data = {"path": write_jsonl(tmp_path / "test.jsonl", rows), "prompt": "question", "answer": "solution"}
    context = make_context(tmp_path, "evaluation", inputs=inputs)
    settings = {**OPTIONS, "samples_kept": 6, "temperature": 0.0, "data": data, "compare": ["sft"]}
    settings["judge"] = "function:exact_answer"
    final = evaluation.run(stage_config("evaluation", **settings), context)
    found = json.loads((context.output / "evaluation.json").read_text())
    samples = read_jsonl(context.output / "samples.jsonl")
    assert [sample["completions"]["sft"] for sample in samples] == expected + expected
    assert {sample["answer"] for sample in samples} == {"7"}
    scores = [sample["scores"]["sft"] for sample in samples]
    interval = list(score_interval(scores[:3]))
    assert (found["policies"]["sft"]["accuracy"], found["policies"]["sft"]["accuracy_ci95"]) == (
        pytest.approx(np.mean(scores)),
        pytest.approx(interval),
    )
    assert found["policies"]["sft"]["judge_score"]["ci95"] == found["policies"]["sft"]["accuracy_ci95"]
    assert (
        found["policies"]["sft"]["perplexity"] is None
        and found["seen_elsewhere"]["sft"] == {"same_text": 0, "same_content": 0}
        and found["pairs"] == []
    )
    assert "win_rate" not in final
