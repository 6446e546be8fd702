"""What the code on the page "Coming from KerasHub" leaves behind, against the numpy model; and what the page names."""

import re

import guide_values
import keras
import numpy as np
import numpy_gemma
import pytest


def test_the_first_block_trains_and_speaks(page):
    model = page["gemma_lm"]
    assert [model.preprocessor.sequence_length, model.backbone.adapters["default"].rank] == [256, 4]
    row = guide_values.pair_row(model.tokenizer, "Who is Anna?", "my name")
    # One step at a rate of 5e-5 since.
    expected = guide_values.keras_loss(model, [row], guide_values.width_of([row]))
    assert page["history"].history["loss"][0] == pytest.approx(expected, rel=1e-3)
    assert page["text"].startswith("Who is Anna?")


def test_a_marked_prompt_is_a_conversation(page):
    assert page["turns"] == [{"role": "user", "content": "Hello, my name is Anna."}]
    model = page["gemma_lm"]
    ids = guide_values.asked_ids(model.tokenizer, [("user", "Hello, my name is Anna.")])
    found = guide_values.response_ids(model, ids, max_length=64, seed=1)
    assert page["answer"] == model.tokenizer.decode(found)


def test_states_are_those_of_each_block(page):
    model = page["gemma_lm"]
    ids = [2, *model.tokenizer.encode("The universe is")]
    expected = numpy_gemma.states(np.array(ids), dict(model.backbone.named_arrays()), model.config)
    found = keras.ops.convert_to_numpy(page["states"])
    assert found.shape == (2, 1, 256, 16)
    np.testing.assert_allclose(found[:, 0, : len(ids)], np.stack(expected), atol=1e-4)


def test_the_classifier_gives_probabilities_of_its_words(page):
    model = page["gemma_lm"]
    for prompt, found in zip(["Is it so?", "The universe is"], page["probabilities"], strict=True):
        last = guide_values.logits(model, [2, *model.tokenizer.encode(prompt)])[-1]
        expected = np.exp(guide_values.log_softmax(last[[model.tokenizer.token_to_id(word) for word in ("Yes", "No")]]))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_steered_model_says_what_its_vectors_make_likely(page):
    model = page["steered"]
    ids = guide_values.asked_ids(model.tokenizer, [("user", "Hello, my name is Anna.")])
    found = guide_values.response_ids(model, ids, max_length=64, sampler="greedy")
    assert page["said"] == model.tokenizer.decode(found)
    steer = np.full((2, 16), 0.5)
    assert guide_values.shortfall(model, ids, found, steer=steer).max() < 1e-3


def test_every_file_of_tests_that_the_page_names_is_there(repository):
    text = (repository / "docs/coming_from_keras_hub.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+\.py)`", text))
    here = {path.name for path in (repository / "tests/keras_guides").glob("test_*.py")}
    assert named <= here and here - named <= {"test_page.py", "test_things.py", "test_keras_options.py"}
