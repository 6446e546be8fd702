"""Cached generation against the uncached model, stop tokens, and draws that do not depend on the batch."""

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, Sampler, backends
from gemma_keras.backends import to_host
from gemma_keras.generation import Generated, generate_tokens
from gemma_keras.random import uniforms
from gemma_keras.sampling import sample

PROMPTS = np.array([[0, 0, 2, 5, 6], [2, 9, 10, 11, 12]], np.int32)
IS_TOKEN = PROMPTS > 0


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
@pytest.mark.parametrize("sampler", [Sampler(0.0), Sampler(0.8, top_k=20)], ids=["greedy", "random"])
def test_every_token_and_log_prob_is_the_one_the_uncached_model_gives(tiny_configs, family, sampler):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs[family], seed=2))
    draws = np.stack([uniforms(0, "draw", row, shape=12) for row in range(2)])
    generated = generate_tokens(model, PROMPTS, IS_TOKEN, 12, draws, sampler, (), with_entropy=True)
    ids = np.concatenate([PROMPTS, generated.token_ids], 1)
    mask = np.concatenate([IS_TOKEN, generated.response_mask], 1)
    logits = to_host(model({"token_ids": ids, "padding_mask": mask}))
    assert generated.response_mask.all() and not generated.finished.any()
    for step in range(12):
        expected, log_probs = sample(
            keras.ops.convert_to_tensor(logits[:, 4 + step]), keras.ops.convert_to_tensor(draws[:, step]), sampler
        )
        np.testing.assert_array_equal(generated.token_ids[:, step], to_host(expected), err_msg=str(step))
        np.testing.assert_allclose(generated.log_probs[:, step], to_host(log_probs), atol=1e-5, err_msg=str(step))
        powers = np.exp(np.float64(logits[:, 4 + step]) / (sampler.temperature or 1.0))
        chances = powers / powers.sum(axis=-1, keepdims=True)
        entropy = -(chances * np.log(chances)).sum(axis=-1)
        np.testing.assert_allclose(generated.entropy[:, step], entropy, atol=1e-5, err_msg=str(step))


def test_rows_stop_at_their_own_stop_token(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=2))
    draws = np.stack([uniforms(0, "draw", row, shape=16) for row in range(2)])
    unstopped = generate_tokens(model, PROMPTS, IS_TOKEN, 16, draws, Sampler(), ())
    free = unstopped.token_ids
    stop = int(free[0, 3])
    first = [int(np.argmax(row == stop)) if stop in row else 15 for row in free]
    stopped = generate_tokens(model, PROMPTS, IS_TOKEN, 16, draws, Sampler(), (stop, 1))
    for row in range(2):
        length = first[row] + 1
        np.testing.assert_array_equal(stopped.token_ids[row, :length], free[row, :length])
        assert stopped.response_mask[row].tolist() == [True] * length + [False] * (16 - length)
        assert (stopped.token_ids[row, length:] == 0).all()
        assert (stopped.log_probs[row, :length] < 0).all() and not stopped.log_probs[row, length:].any()
        assert stopped.finished[row] == (stop in free[row])
        np.testing.assert_allclose(stopped.log_probs[row, :length], unstopped.log_probs[row, :length], atol=1e-5)
    short = stopped.shortened(2)
    assert short.token_ids.shape == short.response_mask.shape == short.log_probs.shape == (2, 2)
    np.testing.assert_array_equal(short.log_probs, stopped.log_probs[:, :2])


def test_samplers_that_differ_in_their_seed_share_a_program(tiny_configs, monkeypatch):
    backbone = GemmaBackbone(tiny_configs["gemma"], seed=2)
    made, compile_forward = [], backends.compile_forward

    def noted(function, *arguments):
        made.append(function.__self__.sampler)
        return compile_forward(function, *arguments)

    monkeypatch.setattr(backends, "compile_forward", noted)
    for seed in (None, 1, 2):
        sampler = Sampler(0.5, seed=seed)
        generate_tokens(backbone, PROMPTS, IS_TOKEN, 1, np.zeros((2, 1), np.float32), sampler, ())
    assert made == [Sampler(0.5)]


def test_a_single_token_is_the_shortest_response(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=2))
    draws = np.zeros((2, 1), np.float32)
    generated = generate_tokens(model, PROMPTS, IS_TOKEN, 1, draws, Sampler(0.0), ())
    logits = to_host(model({"token_ids": PROMPTS, "padding_mask": IS_TOKEN}))
    assert generated.token_ids.tolist() == logits[:, -1].argmax(axis=-1)[:, None].tolist()
    assert generated.response_mask.all() and not generated.finished.any()
    with pytest.raises(ValueError, match=r"\(b, max_new_tokens\) = \(2, 0\)"):
        generate_tokens(model, PROMPTS, IS_TOKEN, 0, draws[:, :0], Sampler(0.0), ())


def test_a_response_cut_afterwards_is_finished_only_where_its_stop_token_is_kept():
    lengths = np.array([2, 3, 4, 4])
    mask = np.arange(4)[None] < lengths[:, None]
    log_probs = np.where(mask, np.float32(-0.5) * np.arange(1, 5), 0)
    finished = np.array([True, True, True, False])
    generated = Generated(np.where(mask, 7, 0).astype(np.int32), mask, finished, log_probs)
    cut = generated.shortened(3)
    assert cut.log_probs.tolist() == log_probs[:, :3].tolist()
    assert cut.finished.tolist() == [True, True, False, False]
    assert cut.response_mask.sum(axis=1).tolist() == [2, 3, 3, 3] and cut.token_ids.shape == (4, 3)
    assert generated.shortened(2).finished.tolist() == [True, False, False, False]
    assert generated.shortened(4) is generated
    by_row = generated.limited([4, 2, 1, 3], pad_token_id=5)
    assert by_row.token_ids.tolist() == [[7, 7, 0, 0], [7, 7, 5, 5], [7, 5, 5, 5], [7, 7, 7, 5]]
    assert by_row.finished.tolist() == [True, False, False, False]
    assert by_row.response_mask.sum(axis=1).tolist() == [2, 2, 1, 3] == (by_row.log_probs < 0).sum(axis=1).tolist()


def test_answers_to_one_prompt_share_its_prefill_and_change_nothing(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma2"], seed=2))
    draws = np.stack([uniforms(0, "draw", row, shape=8) for row in range(6)])
    shared = generate_tokens(model, PROMPTS, IS_TOKEN, 8, draws, Sampler(), (7,))
    apart = generate_tokens(model, np.repeat(PROMPTS, 3, 0), np.repeat(IS_TOKEN, 3, 0), 8, draws, Sampler(), (7,))
    assert len({tuple(row) for row in shared.token_ids}) == 6
    np.testing.assert_array_equal(shared.token_ids, apart.token_ids)
    np.testing.assert_array_equal(shared.finished, apart.finished)
    np.testing.assert_allclose(shared.log_probs, apart.log_probs, atol=1e-5)
    with pytest.raises(ValueError, match=r"or a multiple of these rows .* Received: \(5, 8\)"):
        generate_tokens(model, PROMPTS, IS_TOKEN, 8, draws[:5], Sampler(), ())


@pytest.mark.once
def test_a_large_batch_goes_on_without_the_rows_that_ended(tiny_configs, monkeypatch):
    """In the order that was asked for, with the tokens of batches that are too small to be halved."""
    monkeypatch.setattr("gemma_keras.generation.LEAST_HALVED_ROWS", 12)
    monkeypatch.setattr("gemma_keras.generation.LONG_DECODING", 8)
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=2))
    draws = np.stack([uniforms(0, "draw", row, shape=12) for row in range(24)])
    stops = tuple(range(3, 40))
    whole = generate_tokens(model, PROMPTS, IS_TOKEN, 12, draws, Sampler(), stops, with_entropy=True)
    parts = [
        generate_tokens(model, PROMPTS[[row]], IS_TOKEN[[row]], 12, draws[start : start + 6], Sampler(), stops, True)
        for start, row in ((0, 0), (6, 0), (12, 1), (18, 1))
    ]
    lengths = whole.response_mask.sum(axis=1)
    assert (lengths > np.sort(lengths)[-6]).any() and (lengths > lengths.min()).any() and whole.finished.any()
    for name in ("token_ids", "response_mask", "finished"):
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    for name in ("log_probs", "entropy"):
        expected = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(getattr(whole, name), expected, atol=1e-5)
    assert (whole.entropy[whole.response_mask] > 0).all() and not whole.entropy[~whole.response_mask].any()


def test_a_row_draws_the_same_alone_and_in_a_batch(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma3"], seed=2))
    draws = np.stack([uniforms(0, "draw", row, shape=8) for row in range(2)])
    both = generate_tokens(model, PROMPTS, IS_TOKEN, 8, draws, Sampler(), ())
    alone = generate_tokens(model, PROMPTS[:1, 2:], IS_TOKEN[:1, 2:], 8, draws[:1], Sampler(), ())
    np.testing.assert_array_equal(both.token_ids[:1], alone.token_ids)


def test_generate_keeps_or_strips_the_prompt_and_honours_seed_and_length(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=2))
    prompts = [[2, 5, 6], [2, 9, 10, 11, 12]]
    whole = model.generate(prompts, max_length=11, seed=4, stop_token_ids=None)
    answer = model.generate(prompts, max_length=11, seed=4, stop_token_ids=None, strip_prompt=True)
    other = model.generate(prompts, max_length=11, seed=5, stop_token_ids=None, strip_prompt=True)
    # The prompt stands at the start of its row, and every row is filled up to the length that was asked for.
    assert answer["token_ids"].shape == (2, 8) and answer["padding_mask"].sum(axis=1).tolist() == [8, 6]
    assert whole["token_ids"].shape == (2, 11) and whole["padding_mask"].all()
    for row, prompt in enumerate(prompts):
        assert whole["token_ids"][row].tolist() == prompt + answer["token_ids"][row].tolist()[: 11 - len(prompt)]
    assert answer["token_ids"][1, 6:].tolist() == [0, 0]
    alone = model.generate(prompts[1:], max_length=11, seed=4, stop_token_ids=None)
    assert alone["token_ids"][0].tolist()[:5] == prompts[1], "row 0 of its own call, with other draws"
    assert (answer["token_ids"] != other["token_ids"]).any()


@pytest.mark.parametrize(
    "ids, is_token, draws, text",
    [
        (PROMPTS[:, ::-1], IS_TOKEN[:, ::-1], (2, 4), "padded on the left"),
        (PROMPTS, IS_TOKEN, (2, 5), "uniforms"),
        (PROMPTS, IS_TOKEN[:, 1:], (2, 4), r"must be \(b, p\)"),
    ],
)
def test_bad_arrays_are_refused(tiny_configs, ids, is_token, draws, text):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"]))
    with pytest.raises(ValueError, match=text):
        generate_tokens(model, ids, is_token, 4, np.zeros(draws, np.float32), Sampler(), ())


def test_text_without_a_tokenizer_and_full_prompts_are_refused(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"]))
    with pytest.raises(ValueError, match="no tokenizer"):
        model.generate("hello")
    with pytest.raises(ValueError, match="leaves no room"):
        model.generate([[2, 3, 4]], max_length=3)
