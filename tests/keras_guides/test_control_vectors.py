"""control_vectors: the states of each block, their main difference between two voices, and generating with it added.

The guide builds functional models of `layer.output` and wraps the blocks; here an intercept reads and changes what goes
from block to block, as docs/coming_from_keras_hub.md says it.
"""

import guide_values
import keras
import numpy as np
import numpy_gemma
import pytest

from gemma_keras.models import GemmaBackbone, GemmaCausalLM, GemmaCausalLMPreprocessor

SUFFIXES = ["The universe is wide", "Keras is a library", "Text: you look nice", "What should I do", "Hello, my name"]
VOICES = ("You are very formal.", "You are very rude.")


@pytest.fixture(scope="module")
def parts(presets):
    preset = presets["gemma2_instruct_2b_en"]
    return GemmaBackbone.from_preset(preset), GemmaCausalLMPreprocessor.from_preset(preset)


@pytest.fixture(scope="module")
def activations(parts, page):
    """What each block returns on every suffix in both voices: the arrays, their texts and float (layers, b, t, d)."""
    backbone, preprocessor = parts
    texts = [f"{voice} {suffix}" for suffix in SUFFIXES for voice in VOICES]
    processed = preprocessor(texts, sequence_length=48)[0]
    return processed, texts, keras.ops.convert_to_numpy(page["states_of_blocks"](backbone, processed))


def test_states_of_each_block(parts, activations):
    backbone, preprocessor = parts
    _, texts, found = activations
    assert found.shape == (2, 10, 48, 16)
    weights = dict(backbone.named_arrays())
    for row in (0, 1, 9):
        ids = guide_values.text_row(preprocessor.tokenizer, texts[row])[0]
        expected = numpy_gemma.states(np.array(ids), weights, backbone.config)
        for layer, states in enumerate(expected):
            np.testing.assert_allclose(found[layer, row, : len(ids)], states, atol=1e-4)


def main_directions(processed, states):
    """For each layer the first principal component of the differences between the voices: (layers, d)."""
    last = processed["padding_mask"].sum(1) - 1
    at_end = states[:, np.arange(len(last)), last].reshape(len(states), len(SUFFIXES), 2, -1)
    differences = at_end[:, :, 1] - at_end[:, :, 0]
    centered = differences - differences.mean(1, keepdims=True)
    return np.stack([np.linalg.svd(layer, full_matrices=False)[2][0] for layer in centered])


def test_generating_with_a_control_vector(presets, parts, activations, page):
    _, preprocessor = parts
    processed, _, states = activations
    directions = main_directions(processed, states)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-5)
    steered = page["SteeredBackbone"].from_preset(presets["gemma2_instruct_2b_en"])
    answers = []
    for strength in (-1.9, 1.9):
        steered.steer(strength * directions)
        gemma = GemmaCausalLM(backbone=steered, preprocessor=preprocessor)
        ids = guide_values.asked_ids(gemma.tokenizer, [("user", "What is first?")])
        found = guide_values.response_ids(gemma, ids, max_length=64, sampler="greedy")
        behind = guide_values.shortfall(gemma, ids, found, steer=strength * directions)
        assert behind.max() < 1e-3
        # The same tokens are not what the model says by itself.
        assert guide_values.shortfall(gemma, ids, found).max() > 0.1
        answers.append(found)
    assert answers[0] != answers[1]


def test_scores_with_a_control_vector(parts, activations):
    gemma = GemmaCausalLM(backbone=parts[0], preprocessor=parts[1])
    processed, texts, _ = activations
    vectors = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    found = gemma.score(
        token_ids=processed["token_ids"],
        padding_mask=processed["padding_mask"],
        layer_intercept_fn=lambda x, i: x if i < 0 else x + keras.ops.convert_to_tensor(vectors[i]),
    )
    ids = guide_values.text_row(gemma.tokenizer, texts[3])[0]
    expected = guide_values.logits(gemma, ids, steer=vectors)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found)[3, : len(ids)], expected, atol=1e-4)
