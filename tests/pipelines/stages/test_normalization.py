"""The zero of a reward is what the tuned model says on average, also where most of its answers gave no preference."""

import itertools

import numpy as np
import pytest
from stage_fixture import WORDS, make_context, read_jsonl, stage_config, tiny_tuned_model, write_jsonl

from gemma_keras import GemmaCausalLM, GemmaRewardModel
from gemma_keras.backends import to_host
from gemma_keras.inputs.padding import padded
from gemma_keras.text.chat import encode_prompt
from pipelines.host.errors import DataError
from pipelines.sampling.collected import RESPONSES_FILE, read_responses
from pipelines.sampling.prompts import encode_prompts
from pipelines.sampling.rollout import Sampling
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.preference_collection import run as preference_collection
from pipelines.stages.reward_modeling import run as reward_modeling

pytestmark = pytest.mark.once

N = 200
FAVOURITE = 200  # an id
PROMPTS = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS, 3), 0, 3 * N, 3)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model that says one token in most of its answers, and the others at random."""
    folder = tiny_tuned_model(tmp_path_factory.mktemp("sure"))
    model = GemmaCausalLM.from_preset(folder / "model")
    embedding = model.backbone.named_variables()["embedding"]
    table = np.array(to_host(embedding)) * (0.02 * embedding.shape[1] ** 0.5)
    embedding.assign(table)
    tokens, is_token = padded([encode_prompt(model.tokenizer, prompt) for prompt in PROMPTS[::10]], 0, 32)
    states = to_host(model.backbone({"token_ids": tokens, "padding_mask": is_token}))
    state = states[np.arange(len(tokens)), is_token.sum(axis=1) - 1].mean(axis=0)
    table[FAVOURITE] = state * (np.log(6 * len(table)) / (state @ state))
    embedding.assign(table)
    model.save_to_preset(folder / "model")
    return {"sft": folder}


def test_the_mean_normalised_reward_of_fresh_samples_is_zero(inputs, tmp_path):
    data = {"path": write_jsonl(tmp_path / "p.jsonl", [{"prompt": p, "answer": "x"} for p in PROMPTS])}
    data |= {"prompt": "prompt", "answer": "answer"}
    context = make_context(tmp_path, "collected", inputs=inputs)
    options = {"from": "sft", "max_length": 32, "batch_size": 100}
    config = stage_config("preference_collection", data=data, max_new_tokens=1, rater="exact_answer", **options)
    figures = preference_collection.run(config, context)
    assert figures["identical_pairs"] > 0.6 * N
    rows, collected = read_jsonl(context.output / "preferences.jsonl"), read_responses(context.output)
    assert len(rows) == figures["pairs"] == N - figures["identical_pairs"] and len(collected) == N
    responses = {tuple(one.prompt_ids): one.response_ids for one in collected}
    equal = sum(first == second for first, second in responses.values())
    assert 0.5 * N < equal <= figures["identical_pairs"]  # some ids read the same
    for row in rows:
        assert sorted([row["chosen_ids"], row["rejected_ids"]]) == sorted(responses[tuple(row["prompt_ids"])])

    context = make_context(tmp_path, "reward", inputs={**inputs, "collected": context.output})
    config = stage_config(
        "reward_modeling", data="collected", max_steps=1, heldout_fraction=0.5, normalize_prompts=N,
        **{**options, "batch_size": 16, "learning_rate": 0.001},
    )  # fmt: skip
    assert reward_modeling.run(config, context)["normalization_samples"] == 2 * N

    tuned = GemmaCausalLM.from_preset(inputs["sft"] / "model")
    prompts = encode_prompts(tuned.tokenizer, context.examples(stage_config(
        "preference_collection", data=data, **{"from": "sft"}).data, "prompt"), 32, 1)  # fmt: skip
    fresh = Sampling(tuned, 1, 1.0, 100, 99, "fresh").sample(prompts, range(N))
    model = GemmaRewardModel.from_preset(context.output / "model")
    scorer = SequenceScorer(model)
    rewards = model.normalized(scorer.raw_scores(fresh.sequences()).astype(np.float64))
    # Both means have an error: that of the fresh samples, and that of the zero, for which a prompt counts once.
    error = np.sqrt(rewards.var() / N + 1 / N)
    assert abs(rewards.mean()) < 2.5 * error
    of_pairs = model.normalized(
        scorer.raw_scores([row["prompt_ids"] + row[f"{side}_ids"] for row in rows for side in ("chosen", "rejected")])
    )
    assert abs(of_pairs.mean()) > 4 * error  # the pairs alone would have set another zero


def test_responses_that_are_missing_or_not_ours_are_named(tmp_path):
    with pytest.raises(DataError, match="responses.jsonl:1: missing. Expected all responses of a finished"):
        read_responses(tmp_path)
    write_jsonl(tmp_path / RESPONSES_FILE, [{"prompt_ids": [2], "response_ids": [[3]]}, {"prompt": "red"}])
    with pytest.raises(DataError, match="responses.jsonl:2: expected `prompt_ids` and `response_ids`, got prompt. Run"):
        read_responses(tmp_path)
