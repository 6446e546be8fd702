"""Sampling and scoring: draws keyed by prompt and sample, and exactly the sampled ids scored, against dense logits."""

import numpy as np
import pytest
from policy_fixture import dense_log_probs, prompts_of, rollout_of, world_model, world_reward_model

from gemma_keras import GemmaCausalLM, GemmaRewardModel, backends
from pipelines.host.errors import DataError
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.parts import plain_parts
from pipelines.sampling.prompts import encode_prompts
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.sampling.widths import part_shapes

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
    assert inputs["token_ids"].tolist() == [[2, 7, 5, 1, 0], [2, 8, 9, 6, 0]]
    assert inputs["padding_mask"].tolist() == [[True, True, True, True, False]] * 2
    assert inputs["target_ids"].tolist() == [[5, 1], [6, 0]]
    assert inputs["target_positions"].tolist() == [[1, 2], [2, 3]]
    assert rollout.sequences() == [[2, 7, 5, 1], [2, 8, 9, 6]]


def test_parts_by_hand():
    """Of 44 slots a quarter is 11; the narrow half holds up to 2 of 4 response tokens. Rows come back by their
    number."""
    prompts = [[2] * 40, [2] * 9, [2] * 8, [2] * 9]
    rollout = rollout_of(prompts, [[5], [6, 7, 8], [3, 1], [4]], [False] * 4, [""] * 4)
    assert part_shapes(40, 3) == [(11, 2), (22, 2), (33, 3), (43, 3)] and part_shapes(30, 10) == [(40, 10)]
    (narrow, first), (wide, last) = plain_parts(rollout, 3, part_shapes(40, 3))
    assert first.tolist() == [2, 3, 1] and last.tolist() == [0]
    assert narrow["token_ids"].shape == (3, 33) and narrow["target_ids"].tolist() == [[3, 1, 0], [4, 0, 0], [6, 7, 8]]
    assert wide["token_ids"].shape == (3, 43) and wide["target_positions"].tolist() == [[39, 40, 41]] * 3
    assert wide["response_mask"].any(axis=1).tolist() == [True, False, False]
    (only, rows), *_ = plain_parts(rollout, 2, part_shapes(40, 3))
    assert rows.tolist() == [2, 3] and only["token_ids"].shape == (2, 11)
    assert only["target_ids"].tolist() == [[3, 1], [4, 0]] and only["target_positions"].tolist() == [[7, 8], [8, 9]]


def test_width_changes_neither_draws_nor_scores(model, rollout, tmp_path):
    """Prompts padded to 200 are read at a rung of their own length, and scored in parts of two widths."""
    wide = sampling(model).sample(prompts_of(PROMPTS, length=200), range(4), 2, step=3)
    assert wide.prompt_ids.shape == (8, 200) and wide.texts == rollout.texts
    assert {arrays["token_ids"].shape[1] for arrays, _ in plain_parts(wide, 2, part_shapes(200, 6))} == {52, 155}
    folder = world_model(tmp_path, seed=4, scale=4.0, stop_scale=5.0, final_logit_soft_cap=2.0)
    other = GemmaCausalLM.from_preset(folder / "model")
    for one, two in zip(*(ResponseScorer(other, 0.7, 2)(drawn) for drawn in (rollout, wide)), strict=True):
        assert np.abs(one - two).max() < 1e-5 and np.abs(one).max() > 0.1
    exact = ExactKL(model, ReferencePolicy(other), 0.7, 2)
    assert np.abs(exact(rollout) - exact(wide)).max() < 1e-5


@pytest.mark.once
def test_prompts_of_several_rungs_are_sampled_apart_and_come_back_in_order(model, rollout):
    """Two short ones in one batch, as 5 rows hold two whole prompts; then the long one."""
    mixed = sampling(model, batch_size=5).sample(
        prompts_of([PROMPTS[0], [2] * 140, PROMPTS[2]], length=160), [0, 1, 2], 2, step=3
    )
    assert [mixed.prompt_list(row) for row in range(0, 6, 2)] == [PROMPTS[0], [2] * 140, PROMPTS[2]]
    for row in (0, 1, 4, 5):
        assert mixed.response_list(row) == rollout.response_list(row)
    for row in (2, 3):
        response = mixed.response_list(row)
        dense = dense_log_probs(model, [2] * 140, response, 0.7, width=160)
        assert np.abs(mixed.log_probs[row, : len(response)] - dense[np.arange(len(response)), response]).max() < 1e-4


def test_entropy_is_measured_where_it_is_asked_for(model, rollout):
    assert rollout.entropy is None
    drawn = Sampling(model, LENGTH, 0.7, 8, 7, "policy", with_entropy=True).sample(prompts_of(PROMPTS), range(4), 2, 3)
    assert drawn.texts == rollout.texts
    assert np.abs(drawn.entropy - ResponseScorer(model, 0.7, 8)(rollout)[1]).max() < 1e-5
    assert drawn.entropy[drawn.response_mask].min() > 0.1


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


@pytest.mark.parametrize("kind", [GemmaCausalLM, GemmaRewardModel])
def test_a_frozen_model_computes_the_same_bits_in_half_the_memory(tmp_path, kind):
    """Norms included, whose scales stay float32: rounded ones would give equal policies a KL."""
    folder = (
        world_model(tmp_path / "model", scale=4.0) if kind is GemmaCausalLM else world_reward_model(tmp_path / "model")
    )
    ids = np.random.default_rng(0).integers(3, 300, (4, 12)).astype(np.int32)
    found = []
    for dtype in ("mixed_bfloat16", frozen_dtype("mixed_bfloat16")):
        model = kind.from_preset(folder / "model", dtype=dtype)
        for name, variable in model.backbone.named_variables().items():
            if "norm" in name:
                variable.assign(np.linspace(-0.3, 0.3, variable.shape[0]))
        run = backends.compile_forward(lambda inputs, model=model: model(inputs), [model])
        found.append(backends.to_host(run({"token_ids": ids, "padding_mask": ids > 20})))
    np.testing.assert_array_equal(*found)
    assert frozen_dtype("float32") == "float32" and frozen_dtype("bfloat16") == "bfloat16"
    names = model.backbone.named_variables().items()
    assert {name for name, variable in names if variable.dtype != "bfloat16"} == {n for n, _ in names if "norm" in n}
