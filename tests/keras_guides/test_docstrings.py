"""The examples in the docstrings of KerasHub's Gemma classes: training without text, an own size, scores and their
gradients."""

import guide_values
import keras
import numpy as np
import pytest

from gemma_keras.models import GemmaBackbone, GemmaCausalLM, GemmaCausalLMPreprocessor, GemmaTokenizer
from gemma_keras.samplers import TopPSampler

FEATURES = ["The quick brown fox jumped.", "I forgot my homework."]


@pytest.fixture(scope="module")
def gemma_lm(presets):
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    model.compile(keras.optimizers.SGD(0.0))
    return model


def test_fit_on_a_batch_of_texts(gemma_lm):
    rows = [guide_values.text_row(gemma_lm.tokenizer, text) for text in FEATURES]
    history = gemma_lm.fit(x=FEATURES, batch_size=2, verbose=0).history
    assert history["loss"][0] == pytest.approx(guide_values.mean_surprise(gemma_lm, rows)[0], rel=1e-5)


def test_fit_without_text(gemma_lm):
    x = {
        "token_ids": np.array([[2, 271, 300, 290, 281, 1, 0, 0]] * 2),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 0, 0]] * 2),
    }
    y = np.array([[271, 300, 290, 281, 1, 0, 0, 0]] * 2)
    sample_weight = np.array([[1, 1, 1, 1, 0, 0, 0, 0]] * 2)
    history = gemma_lm.fit(x=x, y=y, sample_weight=sample_weight, batch_size=2, verbose=0).history
    row = [2, 271, 300, 290, 281, 1], [False, True, True, True, True, False]
    assert history["loss"][0] == pytest.approx(guide_values.mean_surprise(gemma_lm, [row])[0], rel=1e-5)


def test_a_loss_of_the_users_prints_what_keras_hub_does_on_rows_as_wide(gemma_lm):
    """Keras divides by every position, padding too, so the width of the rows is in the number."""
    gemma_lm.compile(keras.optimizers.SGD(0.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = [guide_values.text_row(gemma_lm.tokenizer, text) for text in FEATURES]
    x, y, sample_weight = gemma_lm.preprocessor(FEATURES, sequence_length=64)
    found = gemma_lm.evaluate(x, y, sample_weight=sample_weight, batch_size=2, verbose=0)
    assert found == pytest.approx(guide_values.keras_loss(gemma_lm, rows, 64), rel=1e-5)
    narrow = gemma_lm.evaluate(FEATURES, batch_size=2, verbose=0)
    assert narrow == pytest.approx(found * 64 / guide_values.width_of(rows), rel=1e-5)
    gemma_lm.compile(keras.optimizers.SGD(0.0))


def test_custom_backbone_and_vocabulary(presets):
    preset = presets["code_gemma_2b_en"]
    tokenizer = GemmaTokenizer.from_preset(preset)
    preprocessor = GemmaCausalLMPreprocessor(tokenizer=tokenizer, sequence_length=128)
    backbone = GemmaBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        hidden_dim=16,
        # KerasHub counts gate and input together, and gates half of it.
        intermediate_dim=48,
    )
    gemma_lm = GemmaCausalLM(backbone=backbone, preprocessor=preprocessor)
    kernels = {name: values.shape for name, values in backbone.named_arrays()}
    expected = {name: values.shape for name, values in GemmaBackbone.from_preset(preset).named_arrays()}
    assert kernels == expected and kernels["layers.0.gate_proj"] == (16, 24)
    row = guide_values.text_row(tokenizer, FEATURES[0])
    found = keras.ops.convert_to_numpy(gemma_lm({"token_ids": np.array([row[0]])}))[0]
    np.testing.assert_allclose(found, guide_values.logits(gemma_lm, row[0]), atol=1e-5)


def test_another_sampler_after_compile(gemma_lm):
    gemma_lm.compile(sampler=TopPSampler(p=0.1, k=200, seed=1))
    ids = [2, *gemma_lm.tokenizer.encode("I want to say")]
    found = guide_values.response_ids(gemma_lm, ids, max_length=48)
    logits = guide_values.logits(gemma_lm, [*ids, *found][:-1])[len(ids) - 1 :]
    chances = np.exp(guide_values.log_softmax(logits))
    more_likely = [row[row > row[token] + 1e-6].sum() for row, token in zip(chances, found, strict=True)]
    # Those before it do not hold the share yet.
    assert max(more_likely) < 0.1
    gemma_lm.compile(keras.optimizers.SGD(0.0))


def gradient(loss_of, embeddings):
    """Of the mean of `loss_of(embeddings)`, in the backend's own way."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(lambda x: keras.ops.mean(loss_of(x))))(embeddings))
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            x = tf.constant(embeddings)
            tape.watch(x)
            loss = keras.ops.mean(loss_of(x))
        return tape.gradient(loss, x).numpy()
    import torch

    x = torch.tensor(embeddings, requires_grad=True)
    keras.ops.mean(loss_of(x)).backward()
    return x.grad.numpy()


def test_gradients_of_a_score_by_the_embeddings(gemma_lm):
    """The example of `score`: each entry of the gradient against a difference of losses of the numpy model."""
    ids = np.array([[2, *gemma_lm.tokenizer.encode("Where are you")]])
    target_ids = np.roll(ids, -1, axis=1)
    table = keras.ops.convert_to_numpy(gemma_lm.backbone.token_embedding.embeddings.value)

    def loss_of(embeddings):
        return gemma_lm.score(
            token_ids=ids, scoring_mode="loss", target_ids=target_ids,
            layer_intercept_fn=lambda x, i: embeddings if i == -1 else x,
        )  # fmt: skip

    plain = keras.ops.convert_to_numpy(loss_of(keras.ops.convert_to_tensor(table[ids])))[0]
    log_probs = guide_values.log_softmax(guide_values.logits(gemma_lm, ids[0]))
    np.testing.assert_allclose(plain, -log_probs[np.arange(ids.shape[1]), target_ids[0]], atol=1e-5)

    found = gradient(loss_of, table[ids])
    arrays = {name: values.astype(np.float64) for name, values in gemma_lm.backbone.named_arrays()}
    rng = np.random.default_rng(0)
    direction = rng.normal(size=table[ids[0]].shape)

    def moved(step):
        import numpy_gemma

        # Rows of their own for the positions, behind those that are read as outputs.
        rows = np.concatenate([arrays["embedding"], table[ids[0]] + step * direction])
        places = np.arange(ids.shape[1]) + len(table)
        logits = numpy_gemma.logits(places, {**arrays, "embedding": rows}, gemma_lm.config)[:, : len(table)]
        return -guide_values.log_softmax(logits)[np.arange(ids.shape[1]), target_ids[0]].mean()

    assert (found[0] * direction).sum() == pytest.approx((moved(1e-4) - moved(-1e-4)) / 2e-4, rel=1e-3)
