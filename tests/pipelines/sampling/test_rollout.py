"""Sampling and scoring: draws keyed by prompt and sample, and exactly the sampled ids scored, against dense logits."""

import numpy as np
import pytest
from policy_fixture import dense_log_probs, prompts_of, rollout_of, world_model

from gemma_keras import GemmaCausalLM
from pipelines.host.errors import DataError
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.prompts import encode_prompts
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer, Sampling

PROMPTS = [[2, 90, 91, 92, 93, 94], [2, 100], [2, 110, 111, 112], [2, 120, 121]]
LENGTH = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Some of its responses stop; its logits are capped, and so low that the cap bends them."""
    folder = world_model(tmp_path_factory.mktemp("model"), scale=4.0, stop_scale=5.0, final_logit_soft_cap=2.0)
    return GemmaCausalLM.from_preset(folder / "model")


def sampling(model, batch_size=8, stage="policy"):
    return Sampling(model, LENGTH, 0.7, batch_size, seed=7, stage=stage)


@pytest.fixture(scope="module")
def rollout(model):
    return sampling(model).sample(prompts_of(PROMPTS), range(4), 2, step=3)


def test_the_responses_are_such_that_padding_shows(rollout):
    assert len(set(rollout.lengths)) >= 3 and rollout.lengths.min() < LENGTH
    assert 2 <= rollout.finished.sum() <= 6


def test_a_rollout_keeps_prompts_and_responses_apart(model, rollout):
    assert rollout.prompt_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for row in range(8):
        assert rollout.prompt_list(row) == PROMPTS[row // 2]
        response = rollout.response_list(row)
        stops = [i for i, token in enumerate(response) if token in model.tokenizer.stop_token_ids]
        assert stops == ([len(response) - 1] if rollout.finished[row] else [])
        assert len(response) == LENGTH or rollout.finished[row]
        assert rollout.texts[row] == model.tokenizer.decode(response)


def test_draws_depend_on_prompt_and_sample_alone(model, rollout):
    in_parts = sampling(model, batch_size=3).sample(prompts_of(PROMPTS), [2, 0], 2, step=3)
    for row, other in ((0, 4), (1, 5), (2, 0), (3, 1)):
        assert in_parts.response_list(row) == rollout.response_list(other)
    assert rollout.response_list(4) != rollout.response_list(5)
    for stage, step in (("policy", 4), ("other", 3)):
        assert sampling(model, stage=stage).sample(prompts_of(PROMPTS), range(4), 2, step=step).texts != rollout.texts


def test_a_prompt_met_twice_in_a_step_is_answered_with_new_draws(model):
    twice = sampling(model).sample(prompts_of(PROMPTS), [1, 1], 2, step=3)
    assert len({tuple(twice.response_list(row)) for row in range(4)}) == 4


def test_scores_are_those_of_the_dense_logits_at_the_sampling_temperature(model, rollout):
    log_probs, entropy = ResponseScorer(model, 0.7, micro_batch_size=3)(rollout)
    for row in range(8):
        response = rollout.response_list(row)
        dense = dense_log_probs(model, rollout.prompt_list(row), response, 0.7)
        assert np.abs(log_probs[row, : len(response)] - dense[np.arange(len(response)), response]).max() < 1e-4
        assert np.abs(entropy[row, : len(response)] + (np.exp(dense) * dense).sum(-1)).max() < 1e-4
        assert not log_probs[row, len(response) :].any() and not entropy[row, len(response) :].any()
    assert np.abs(rollout.log_probs - log_probs).max() < 1e-5
    assert rollout.log_probs[rollout.response_mask].max() < 0


def test_exact_kl_is_the_dense_sum_and_zero_to_itself(model, rollout, tmp_path):
    folder = world_model(tmp_path, seed=4, scale=4.0, stop_scale=5.0, final_logit_soft_cap=2.0)
    other = GemmaCausalLM.from_preset(folder / "model")
    token_kl = ExactKL(model, ReferencePolicy(other), 0.7, micro_batch_size=3)(rollout)
    for row in range(8):
        response = rollout.response_list(row)
        p, q = (dense_log_probs(m, rollout.prompt_list(row), response, 0.7) for m in (model, other))
        assert np.abs(token_kl[row, : len(response)] - (np.exp(p) * (p - q)).sum(-1)).max() < 1e-4
        assert not token_kl[row, len(response) :].any()
    assert token_kl.max() > 0.1
    assert not ExactKL(model, ReferencePolicy(model), 0.7, 8)(rollout).any()


def test_inputs_of_a_rollout_by_hand():
    rollout = rollout_of([[2, 7], [2, 8, 9]], [[5, 1], [6]], [True, False], ["a", "b"])
    inputs = rollout.model_inputs()
    assert inputs["token_ids"].tolist() == [[0, 2, 7, 5, 1], [2, 8, 9, 6, 0]]
    assert inputs["padding_mask"].tolist() == [[False, True, True, True, True], [True, True, True, True, False]]
    assert inputs["target_ids"].tolist() == [[5, 1], [6, 0]]
    assert inputs["target_positions"].tolist() == [[2, 3], [2, 3]]
    assert rollout.sequences() == [[2, 7, 5, 1], [2, 8, 9, 6]]


def test_prompts_that_leave_no_room_are_dropped_and_counted(model):
    examples = prompts_of([[0], [0]]).examples
    examples[1] = type(examples[1])("first of: " + "owl " * 60, None, "data.jsonl:2")
    kept = encode_prompts(model.tokenizer, examples, max_length=64, max_new_tokens=8)
    assert (len(kept), kept.dropped) == (1, 1)
    assert kept.length >= len(kept.token_ids[0])
    with pytest.raises(
        DataError, match="data.jsonl:1: none of 2 prompts leaves room for max_new_tokens=60 within max_length=64"
    ):
        encode_prompts(model.tokenizer, examples, max_length=64, max_new_tokens=60)
