"""Packed against one a row: losses, gradients, scores and figures are the same, on a model with local layers and caps.

What one a row gives is held to the papers' equations elsewhere.
"""

import dataclasses
import os

import numpy as np
import pytest
from keras import ops
from policy_fixture import rollout_of

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel, backends
from gemma_keras.inputs.padding import padded
from gemma_keras.limits import BRANCHES
from gemma_keras.text.chat import EncodedExample
from pipelines.data import layout
from pipelines.data.encoding import EncodedPair
from pipelines.sampling import parts as sampling_parts
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer
from pipelines.sampling.shared_prompts import shared_parts
from pipelines.scoring import reward_models
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.evaluation import policy_measures
from pipelines.stages.policy_optimization.updates import count_responses, policy_loss, ratio_figures, update_batches
from pipelines.stages.reward_modeling.pair_batches import longest_side, pair_batches
from pipelines.stages.reward_modeling.pair_training import count_pairs, pair_loss
from pipelines.training.language_batches import language_batches
from pipelines.training.language_model import next_token_loss_sum
from pipelines.training.loop import count_target_tokens, model_inputs

pytestmark = pytest.mark.once

CONFIG = GemmaConfig(
    vocabulary_size=96, num_layers=2, num_query_heads=2, num_key_value_heads=1, head_dim=8, hidden_dim=16,
    intermediate_dim=32, sliding_window=5, local_layers=(True, False), attention_logit_soft_cap=20.0,
    final_logit_soft_cap=15.0, use_post_norms=True, use_query_key_norm=True,
)  # fmt: skip
RANDOM = np.random.default_rng(4)
SIZE, K = 36, 4
UPDATE = np.array_split(RANDOM.permutation(SIZE), 4)


def ids(low, high):
    return RANDOM.integers(4, 96, size=RANDOM.integers(low, high)).tolist()


@pytest.fixture(autouse=True)
def costly_products(monkeypatch):
    """Of so small a model attention would cost more than padding."""
    monkeypatch.setattr(layout, "costly_width", lambda config: 400)


@pytest.fixture(scope="module")
def backbone():
    return GemmaBackbone(CONFIG, seed=6)


@pytest.fixture(scope="module")
def rollout():
    prompts, responses = [ids(2, 20) for _ in range(SIZE)], [ids(1, 13) for _ in range(SIZE)]
    prompts[3], responses[3] = list(range(10, 30)), list(range(20, 32))  # 32 in all
    return rollout_of(prompts, responses, [True] * SIZE, [""] * SIZE)


def summed(model, loss_function, batches):
    """Loss and gradients of an update, sums over its micro-batches; of aux the sums, and the arrays' rows together."""
    run = backends.compile_gradients(lambda batch: loss_function(model, batch), model)
    losses, auxes, gradients = [], [], []
    for batch in batches:
        loss, aux, slopes = run(model_inputs(batch))
        losses.append(float(loss))
        auxes.append({name: backends.to_host(value) for name, value in aux.items()})
        gradients.append([np.array(ops.convert_to_numpy(slope)) for slope in slopes])
    sums = {name: sum(aux[name] for aux in auxes) for name, value in auxes[0].items() if not value.ndim}
    arrays = {name: np.concatenate([aux[name] for aux in auxes]) for name, value in auxes[0].items() if value.ndim}
    return sum(losses), [sum(parts) for parts in zip(*gradients, strict=True)], arrays, sums


def hold_equal(model, loss_function, plain, packed, tokens):
    """Two cuts of one update, which reads so many tokens, have one loss and one gradient; arrays and sums of both."""
    assert not any("segment_ids" in batch for batch in plain) and all("segment_ids" in batch for batch in packed)
    assert max(b["token_ids"].size for b in packed) <= max(b["token_ids"].size for b in plain)
    assert sum(b["padding_mask"].sum() for b in packed) == tokens
    (loss, gradients, *aux), (other_loss, others, *other_aux) = (
        summed(model, loss_function, batches) for batches in (plain, packed)
    )
    assert other_loss == pytest.approx(loss, rel=1e-5) and other_aux[1] == pytest.approx(aux[1], rel=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        assert np.abs(gradient - other).max() <= 1e-5 * np.abs(gradient).max()
    return aux, other_aux


def one_a_row(monkeypatch):
    for module in (sampling_parts, reward_models):
        monkeypatch.setattr(module, "step_layout", lambda *arguments: None)
    monkeypatch.setattr(sampling_parts, "shared_parts", lambda *arguments: None)


def test_tuning(backbone):
    model = GemmaCausalLM(backbone)
    rows = [ids(4, 40) for _ in range(SIZE)]
    examples = [EncodedExample(row, [i >= len(row) // 2 for i in range(len(row))]) for row in rows]
    plain, packed = (
        list(next(language_batches(examples, [UPDATE], 9, [48], CONFIG, may_pack)())) for may_pack in (False, True)
    )
    assert 1 < len(packed) < len(plain)
    assert sum(map(count_target_tokens, plain)) == sum(map(count_target_tokens, packed))
    assert sum(len(batch["row_index"]) for batch in packed) == SIZE
    hold_equal(model, next_token_loss_sum, plain, packed, sum(map(len, rows)))
    # The sequences beside one's own must not be seen.
    forward = backends.compile_forward(lambda batch: next_token_loss_sum(model, batch)[0], [model])
    loss, mixed = (
        float(forward(model_inputs(batch)))
        for batch in (packed[0], {**packed[0], "segment_ids": packed[0]["padding_mask"].astype(np.int32)})
    )
    assert abs(loss - mixed) > 1e-3 * loss


@pytest.mark.parametrize("is_joined", [True, False])
def test_pairs(backbone, is_joined):
    """The two of a pair with their common beginning once; apart where one of them begins with something else."""
    model = GemmaRewardModel(backbone, seed=8)
    prompts = [ids(2, 24) for _ in range(SIZE)]
    pairs = [EncodedPair(p, p + ids(1, 16), p + ids(1, 16), 1, 1, 0.1 * i) for i, p in enumerate(prompts)]
    if not is_joined:
        pairs[7] = dataclasses.replace(pairs[7], rejected_ids=[3, *pairs[7].rejected_ids[1:]])
    assert longest_side(pairs[:1]) == max(len(pairs[0].chosen_ids), len(pairs[0].rejected_ids))
    assert len(pairs[0].chosen_ids) != len(pairs[0].rejected_ids)
    plain, packed = (
        list(next(pair_batches(pairs, [UPDATE], 9, [40], CONFIG, may_pack)())) for may_pack in (False, True)
    )
    assert 1 < len(packed) < len(plain) and sum(map(count_pairs, packed)) == SIZE
    shared = sum(
        min(len(os.path.commonprefix(sides)), min(map(len, sides)) - 1)
        for sides in ((pair.chosen_ids, pair.rejected_ids) for pair in pairs)
    )
    tokens = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    hold_equal(model, pair_loss(0.01), plain, packed, tokens - shared * is_joined)


@pytest.fixture(scope="module")
def shared():
    """Four answers to each of nine prompts, some of them of one token, and one prompt as wide as a row."""
    prompts, responses = [ids(2, 24) for _ in range(SIZE // K)], [ids(1, 13) for _ in range(SIZE)]
    prompts[3], prompts[5], responses[7] = ids(116, 117), ids(24, 25), ids(12, 13)
    return dataclasses.replace(
        rollout_of([prompt for prompt in prompts for _ in range(K)], responses, [True] * SIZE, [""] * SIZE),
        answers_per_prompt=K,
    )


def test_answers_share_the_reading_of_their_prompt(backbone, shared, monkeypatch):
    model = GemmaCausalLM(backbone)
    shape = shared.response_mask.shape
    old = np.where(shared.response_mask, RANDOM.normal(-4.5, 0.1, size=shape), 0).astype(np.float32)
    arrays = {"old_log_probs": old, "advantages": RANDOM.normal(size=SIZE).astype(np.float32)}
    together = list(update_batches(shared, arrays, 18))
    packed = list(update_batches(dataclasses.replace(shared, answers_per_prompt=1), arrays, 18))
    with monkeypatch.context() as patch:
        one_a_row(patch)
        plain = list(update_batches(shared, arrays, 18))
    assert sum(map(count_responses, together)) == sum(map(count_responses, plain)) == SIZE
    # Each prompt once, and no answer's last token; the prompt that leaves hardly any room is read in several rows.
    prompt_lengths, lengths = shared.prompt_is_token[::K].sum(axis=1), shared.lengths
    least = prompt_lengths.sum() + (lengths - 1).sum()
    tokens = sum(batch["padding_mask"].sum() for batch in together)
    assert (tokens - least) % prompt_lengths[3] == 0 and least < tokens <= least + (K - 1) * prompt_lengths[3]
    assert tokens < 0.7 * sum(batch["padding_mask"].sum() for batch in packed)
    (ratios, aux), (other_ratios, other_aux) = hold_equal(model, policy_loss(0.7, 0.2), plain, together, tokens)
    assert 0 < aux["clip_ratio"] == other_aux["clip_ratio"] < SIZE
    assert ratio_figures(ratios) == pytest.approx(ratio_figures(other_ratios), rel=1e-4)
    # The answers beside one's own must not be seen, and the prompt must.
    forward = backends.compile_forward(lambda batch: policy_loss(0.7, 0.2)(model, batch)[0], [model])
    segments = together[0]["segment_ids"]
    alone = np.unique(segments, return_inverse=True)[1].astype(np.int32).reshape(segments.shape)
    loss, *wrong = (
        float(forward(model_inputs({**together[0], "segment_ids": those})))
        for those in (segments, segments % BRANCHES, alone)
    )
    assert all(abs(other - loss) > 3e-4 * abs(loss) for other in wrong)


def test_a_policy_update(backbone, rollout, monkeypatch):
    model = GemmaCausalLM(backbone)
    advantages = RANDOM.normal(size=SIZE).astype(np.float32)
    old = np.where(rollout.response_mask, RANDOM.normal(-4.5, 0.1, size=rollout.response_mask.shape), 0)
    arrays = {"old_log_probs": old.astype(np.float32), "advantages": advantages}
    packed = list(update_batches(rollout, arrays, 18))
    with monkeypatch.context() as patch:
        one_a_row(patch)
        plain = list(update_batches(rollout, arrays, 18))
    assert sum(map(count_responses, packed)) == sum(map(count_responses, plain)) == SIZE
    tokens = sum(map(len, rollout.sequences()))
    (ratios, aux), (other_ratios, other_aux) = hold_equal(model, policy_loss(0.7, 0.2), plain, packed, tokens)
    assert 0 < aux["clip_ratio"] == other_aux["clip_ratio"] < SIZE
    assert ratio_figures(ratios) == pytest.approx(ratio_figures(other_ratios), rel=1e-4)


@pytest.mark.parametrize("is_shared", [False, True])
def test_scores_come_back_in_their_order(backbone, rollout, shared, monkeypatch, is_shared):
    rollout = shared if is_shared else rollout
    model, reward = GemmaCausalLM(backbone), GemmaRewardModel(backbone, seed=8)
    reference = ReferencePolicy(GemmaCausalLM(GemmaBackbone(CONFIG, seed=7)))
    lengths = np.array(list(map(len, rollout.sequences())))
    assert (shared_parts(rollout, 18) if is_shared else layout.step_layout(lengths, 32, 18)) is not None

    def measured():
        kl = ExactKL(model, reference, 0.7, 18)(rollout)
        return *ResponseScorer(model, 0.7, 18)(rollout), kl, SequenceScorer(reward, 18).raw_scores(rollout.sequences())

    packed = measured()
    one_a_row(monkeypatch)
    for found, expected in zip(packed, measured(), strict=True):
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5
        assert np.abs(np.roll(found, 1, axis=0) - expected).max() > 1e-3


def test_the_perplexity_of_demonstrations(backbone, monkeypatch):
    model = GemmaCausalLM(backbone)
    rows = [ids(4, 40) for _ in range(SIZE)]
    examples = [EncodedExample(row, [i > 1 for i in range(len(row))]) for row in rows]
    encoded = type("Encoded", (), {"examples": examples})
    monkeypatch.setattr(policy_measures, "encode_instructions", lambda *arguments: encoded)
    found = policy_measures.perplexity(model, [None], 48, SIZE)
    forward = backends.compile_forward(lambda arrays: model.token_log_probs(*arrays), [model])
    log_probs = backends.to_host(forward(padded(rows, 0, 48)))
    expected = [row[2 : len(ids)].sum() for row, ids in zip(log_probs, rows, strict=True)]
    assert found == pytest.approx(np.exp(-sum(expected) / sum(len(row) - 2 for row in rows)), rel=1e-5)
