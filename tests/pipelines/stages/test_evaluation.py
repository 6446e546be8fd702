"""Side by side: rates and intervals by hand, and the stage against dense logits."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from policy_fixture import dense_log_probs, world_model
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from gemma_keras import GemmaCausalLM
from gemma_keras.random import generator
from gemma_keras.text.chat import encode_pair, encode_prompt
from pipelines.data.columns import Prompt
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.measures.judges import compare, shuffled_outcomes
from pipelines.sampling.prompts import Prompts
from pipelines.stages.evaluation import run as evaluation
from pipelines.tasks import task

SIZE = 10
DATA = {"task": "small_world", "split": "heldout", "size": SIZE}
OPTIONS = {"max_new_tokens": 6, "max_length": 96, "batch_size": 8, "samples_kept": 3}


def test_rates_by_hand():
    found = compare(np.array([1.0, 2, 3, 4]), np.array([0.0, 2 + 1e-9, 5, 1]), np.arange(4), 0, "s")
    assert (found["win_rate"], found["wins"], found["tie_rate"], found["loss_rate"]) == (0.625, 0.5, 0.25, 0.25)
    assert found["win_rate_ci95"][0] <= 0.625 <= found["win_rate_ci95"][1]


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
    found = evaluation.seen_elsewhere(Prompts(examples, [], 1, 0), config, context)
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
    rows = [{"question": prompt, "solution": "7"} for prompt in prompts]
    data = {"path": write_jsonl(tmp_path / "test.jsonl", rows), "prompt": "question", "answer": "solution"}
    context = make_context(tmp_path, "evaluation", inputs=inputs)
    settings = {**OPTIONS, "temperature": 0.0, "judge": "function:exact_answer", "data": data, "compare": ["sft"]}
    final = evaluation.run(stage_config("evaluation", **settings), context)
    found = json.loads((context.output / "evaluation.json").read_text())
    samples = read_jsonl(context.output / "samples.jsonl")
    assert [sample["completions"]["sft"] for sample in samples] == expected
    assert found["policies"]["sft"]["accuracy"] == pytest.approx(
        np.mean([sample["scores"]["sft"] for sample in samples])
    )
    assert (
        found["policies"]["sft"]["perplexity"] is None
        and found["seen_elsewhere"]["sft"] == {"same_text": 0, "same_content": 0}
        and found["pairs"] == []
    )
    assert "win_rate" not in final
