"""KerasHub itself on the same folder: the guides' calls give the same text, the same arrays and the same losses."""

import guide_values
import keras
import numpy as np
import pytest

from gemma_keras.models import GemmaCausalLM

pytestmark = pytest.mark.needs("keras_hub")

TEXTS = ["The universe is wide.", "Hello, my name is Anna."]


@pytest.fixture(scope="module")
def both(presets):
    import keras_hub

    folder = presets["gemma2_instruct_2b_en"]
    theirs, ours = keras_hub.models.GemmaCausalLM.from_preset(folder), GemmaCausalLM.from_preset(folder)
    theirs.preprocessor.sequence_length = ours.preprocessor.sequence_length = 48
    return theirs, ours


def as_numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_the_preprocessors_make_the_same_arrays(both):
    theirs, ours = (each.preprocessor for each in both)
    (x, y, weights), (expected_x, expected_y, expected_weights) = ours(TEXTS), theirs(TEXTS)
    for name in ("token_ids", "padding_mask"):
        np.testing.assert_array_equal(x[name], as_numpy(expected_x[name]))
    np.testing.assert_array_equal(y * (weights > 0), as_numpy(expected_y) * (as_numpy(expected_weights) > 0))
    np.testing.assert_array_equal(weights, as_numpy(expected_weights))
    for name, values in theirs.generate_preprocess(TEXTS).items():
        np.testing.assert_array_equal(ours.generate_preprocess(TEXTS)[name], as_numpy(values))


def test_the_tokenizers_answer_alike(both):
    theirs, ours = (each.preprocessor.tokenizer for each in both)
    assert ours.vocabulary_size() == theirs.vocabulary_size() and ours.get_vocabulary() == theirs.get_vocabulary()
    for piece in ("Yes", "<unused2>", "<eos>", "<start_of_turn>", "no such piece"):
        assert ours.token_to_id(piece) == theirs.token_to_id(piece)
    for text in (*TEXTS, "a<unused2>-san", "<eos> is text"):
        ids = ours(text)
        assert ids == as_numpy(theirs(text)).tolist()
        assert ours.detokenize(ids) == theirs.detokenize(ids) == text
    assert (ours.end_token, ours.end_token_id) == (theirs.end_token, theirs.end_token_id)


def test_generate_and_score_and_the_loss_of_fit(both):
    theirs, ours = both
    optimizer = keras.optimizers.SGD
    for model in both:
        model.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            optimizer=optimizer(0.0),
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
            sampler="greedy",
        )
    prompt = TEXTS[0]
    assert ours.generate(prompt, max_length=48) == theirs.generate(prompt, max_length=48)
    ids = ours.preprocessor.generate_preprocess(TEXTS)
    found = as_numpy(ours.score(token_ids=ids["token_ids"], padding_mask=ids["padding_mask"]))
    expected = as_numpy(theirs.score(token_ids=ids["token_ids"], padding_mask=ids["padding_mask"]))
    np.testing.assert_allclose(found[ids["padding_mask"]], expected[ids["padding_mask"]], atol=1e-4)
    x, y, weights = ours.preprocessor(TEXTS)
    history = ours.fit(x, y, sample_weight=weights, batch_size=2, verbose=0).history
    expected = theirs.fit(TEXTS, batch_size=2, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected["loss"][0], rel=1e-5)
    name = "sparse_categorical_accuracy"
    assert history[name][0] == pytest.approx(expected[name][0], abs=1e-6)
    rows = [guide_values.text_row(ours.tokenizer, text) for text in TEXTS]
    assert history["loss"][0] == pytest.approx(guide_values.keras_loss(ours, rows, 48), rel=1e-5)
