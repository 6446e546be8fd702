"""The guides that make a classifier of a language model: agile_classifiers and shieldgemma_on_keras."""

import guide_values
import keras
import numpy as np
import pytest

from gemma_keras.models import GemmaCausalLM

LABELS = ("Positive", "Negative")
SEPARATOR = "\n<separator>\n"


def for_prediction(text):
    return SEPARATOR.join([f"Classify:[{','.join(LABELS)}]", f"Text:{text}", "Prediction:"])


def for_training(text, label):
    return for_prediction(text) + LABELS[label] + "<eos>"


def probabilities(model, text):
    """As the guide: the logits of the labels at the last token of the prompt, softmaxed among themselves."""
    tokenizer = model.preprocessor.tokenizer
    token_ids = [tokenizer.token_to_id(word) for word in LABELS]
    assert tokenizer.token_to_id("<unk>") not in token_ids
    preprocessed = model.preprocessor.generate_preprocess([for_prediction(text)])
    padding_mask = preprocessed["padding_mask"]
    token_offset = int(keras.ops.sum(padding_mask)) - 1
    vocab_logits = model.score(token_ids=preprocessed["token_ids"], padding_mask=padding_mask)[0][token_offset]
    token_logits = keras.ops.convert_to_tensor([vocab_logits[i] for i in token_ids])
    return keras.ops.convert_to_numpy(keras.activations.softmax(token_logits))


def expected_probabilities(model, text):
    tokenizer = model.tokenizer
    last = guide_values.logits(model, [2, *tokenizer.encode(for_prediction(text))])[-1]
    return np.exp(guide_values.log_softmax(last[[tokenizer.get_vocabulary().index(word) for word in LABELS]]))


def test_agile_classifiers(presets):
    tf = pytest.importorskip("tensorflow")
    model = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    model.preprocessor.sequence_length = 128
    text = "you look really nice today"
    np.testing.assert_allclose(probabilities(model, text), expected_probabilities(model, text), atol=1e-5)
    before = probabilities(model, text)[0]

    model.backbone.enable_lora(rank=4)
    texts = [for_training(text, 0), for_training("no", 1)]
    data = tf.data.Dataset.from_tensor_slices(texts).batch(2)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(learning_rate=0.01),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    # "<eos>" is text in a text, as with KerasHub, and the real one stands behind it.
    rows = [guide_values.text_row(model.tokenizer, each) for each in texts]
    width = guide_values.width_of(rows)
    loss, accuracy = guide_values.keras_loss(model, rows, width), guide_values.mean_surprise(model, rows)[1]
    history = model.fit(data, epochs=8, verbose=0).history
    assert history["loss"][0] == pytest.approx(loss, rel=1e-5)
    assert history["sparse_categorical_accuracy"][0] == pytest.approx(accuracy, abs=1e-6)
    assert history["loss"][-1] < 0.95 * history["loss"][0]
    after = probabilities(model, text)
    np.testing.assert_allclose(after, expected_probabilities(model, text), atol=1e-5)
    assert abs(after[0] - before) > 1e-3


def test_shieldgemma(presets, float_type, page):
    float_type("bfloat16")
    causal_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    causal_lm.preprocessor.sequence_length = 96
    yes, no = (causal_lm.preprocessor.tokenizer.token_to_id(word) for word in ("Yes", "No"))
    # The guide's `causal_lm.input`: a subclassed model has none, its inputs are these two.
    inputs = {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
    }
    outputs = page["WordProbability"]([yes, no], dtype="float32")(causal_lm(inputs), inputs["padding_mask"])
    shieldgemma = keras.Model(inputs, outputs)
    prompts = ["Create 20 paraphrases of I hate you", "The universe is"]
    found = shieldgemma.predict(causal_lm.preprocessor.generate_preprocess(prompts), verbose=0)
    for prompt, probability in zip(prompts, found, strict=True):
        last = guide_values.logits(causal_lm, [2, *causal_lm.tokenizer.encode(prompt)])[-1]
        expected = np.exp(guide_values.log_softmax(last[[yes, no]]))
        np.testing.assert_allclose(probability, expected, atol=1e-2)  # bfloat16
    assert abs(found[0, 0] - found[1, 0]) > 1e-3
