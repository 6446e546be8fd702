"""The guides that only generate: keras_inference, Keras_Quickstart, and the examples of KerasHub's docstrings."""

import guide_values
import keras
import numpy as np
import pytest

from gemma_keras.models import Gemma3CausalLM, GemmaCausalLM

QUESTIONS = ["what is keras in 3 bullet points?", "The universe is"]
# bfloat16 has 8 bits: a token whose logit is this little behind may be taken for the largest.
CLOSE = 0.05


@pytest.fixture(scope="module")
def gemma_lm(presets):
    model = Gemma3CausalLM.from_preset(presets["gemma3_instruct_1b"], dtype="bfloat16")
    model.compile(sampler="greedy")
    return model


def text_ids(model, text):
    return [2, *model.tokenizer.encode(text)]


def test_keras_inference(gemma_lm):
    assert gemma_lm.backbone.token_embedding.embeddings.dtype == "bfloat16"
    ids = [text_ids(gemma_lm, question) for question in QUESTIONS]
    rows = guide_values.response_ids(gemma_lm, ids, max_length=64)
    for question, row, text, found in zip(
        QUESTIONS, ids, gemma_lm.generate(QUESTIONS, max_length=64), rows, strict=True
    ):
        assert text == question + gemma_lm.tokenizer.decode(found)
        assert guide_values.shortfall(gemma_lm, row, found).max() < CLOSE
    alone = gemma_lm.generate(QUESTIONS[0], max_length=64)
    found = guide_values.response_ids(gemma_lm, ids[0], max_length=64)
    assert alone == QUESTIONS[0] + gemma_lm.tokenizer.decode(found)
    assert guide_values.shortfall(gemma_lm, ids[0], found).max() < CLOSE


def test_keras_inference_with_turns(gemma_lm):
    prompt = f"<start_of_turn>user\n{QUESTIONS[0]}\n<end_of_turn>\n<start_of_turn>model\n"
    gemma_lm.preprocessor.sequence_length = 96  # the room of a prompt without `max_length`
    with pytest.warns(UserWarning, match="<start_of_turn> is written out in the text"):
        assert gemma_lm.generate(prompt).startswith(prompt)
    ids = guide_values.asked_ids(gemma_lm.tokenizer, [("user", QUESTIONS[0])])
    found = guide_values.response_ids(gemma_lm, ids)
    turns = [{"role": "user", "content": QUESTIONS[0]}]
    assert gemma_lm.generate(turns) == gemma_lm.tokenizer.decode(found)
    assert len(found) == 96 - len(ids) or found[-1] in gemma_lm.tokenizer.stop_token_ids


def test_keras_inference_with_another_sampler(gemma_lm):
    ids = text_ids(gemma_lm, QUESTIONS[1])
    gemma_lm.compile(sampler="top_k")
    try:
        keras.utils.set_random_seed(4)
        text = gemma_lm.generate(QUESTIONS[1], max_length=64)
        keras.utils.set_random_seed(4)
        found = guide_values.response_ids(gemma_lm, ids, max_length=64)
    finally:
        gemma_lm.compile(sampler="greedy")
    assert text == QUESTIONS[1] + gemma_lm.tokenizer.decode(found)
    logits = guide_values.logits(gemma_lm, [*ids, *found][:-1])[len(ids) - 1 :]
    fifth = np.sort(logits, axis=-1)[:, -5]
    assert (logits[np.arange(len(found)), found] > fifth - CLOSE).all()
    assert guide_values.ranks(gemma_lm, ids, found).max() > 0


def test_keras_quickstart(presets, float_type):
    float_type("bfloat16")
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    assert {weight.dtype for weight in gemma_lm.weights} == {"bfloat16"}
    prompt = "It was a dark and stormy night."
    ids = text_ids(gemma_lm, prompt)
    text = gemma_lm.generate(prompt, max_length=64, sampler="greedy")
    found = guide_values.response_ids(gemma_lm, ids, max_length=64, sampler="greedy")
    assert text == prompt + gemma_lm.tokenizer.decode(found)
    assert guide_values.shortfall(gemma_lm, ids, found).max() < CLOSE


def test_generate_without_text(presets):
    """Arrays in, arrays out: what the mask covers stays, the room beside it is filled."""
    gemma_lm = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    prompt = {
        "token_ids": np.array([[2, 271, 300, 0, 0, 0, 0, 0]] * 2),
        "padding_mask": np.array([[1, 1, 1, 0, 0, 0, 0, 0]] * 2),
    }
    found = gemma_lm.generate(prompt, sampler="greedy", stop_token_ids=None)
    assert found["token_ids"].shape == (2, 8) and found["padding_mask"].all()
    assert found["token_ids"][0].tolist() == found["token_ids"][1].tolist()
    assert found["token_ids"][0, :3].tolist() == [2, 271, 300]
    assert guide_values.shortfall(gemma_lm, [2, 271, 300], found["token_ids"][0, 3:].tolist()).max() < 1e-4
