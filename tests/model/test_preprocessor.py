"""The preprocessor's arrays by hand, and `fit`, `evaluate` and `predict` on what it makes."""

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
from gemma_keras.backends import to_host
from gemma_keras.inputs import triples
from gemma_keras.inputs.preprocessor import GemmaCausalLMPreprocessor
from gemma_keras.text import chat

TEXTS = ["red cat sun", "blue dog", "one two three green moon", "cat"]
PAIR = {"prompt": "red cat", "completion": "cat red"}


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train([*TEXTS, "cat red", "user model"], 300, "gemma3")


@pytest.fixture(scope="module")
def model(tokenizer):
    config = GemmaConfig(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8,
        hidden_dim=16, intermediate_dim=32,
    )  # fmt: skip
    model = GemmaCausalLM(GemmaBackbone(config, seed=3), preprocessor=GemmaCausalLMPreprocessor(tokenizer, 32))
    model.compile(keras.optimizers.SGD(0.0))
    return model


def test_a_text_becomes_positions_next_tokens_and_weights(tokenizer):
    ids = [tokenizer.bos_token_id, *tokenizer.encode("blue dog"), tokenizer.eos_token_id]
    preprocessor = GemmaCausalLMPreprocessor(tokenizer, sequence_length=12)
    x, y, weights = preprocessor(["blue dog"])
    real = len(ids)
    assert real < 12
    assert x["token_ids"].tolist() == [ids + [0] * (12 - real)]
    assert x["padding_mask"].tolist() == [[True] * real + [False] * (12 - real)]
    assert y.tolist() == [ids[1:] + [0] * (13 - real)]
    assert weights.tolist() == [[1.0] * (real - 1) + [0.0] * (13 - real)]
    single_x, single_y, single_weights = preprocessor("blue dog")
    assert single_x["token_ids"].tolist() == x["token_ids"][0].tolist()
    assert (single_y.tolist(), single_weights.tolist()) == (y[0].tolist(), weights[0].tolist())
    # Exactly as long as there are positions and one token to predict.
    x, y, weights = preprocessor(["blue dog"], sequence_length=real - 1)
    assert x["token_ids"].tolist() == [ids[:-1]] and y.tolist() == [ids[1:]] and weights.all()


def test_of_a_pair_the_response_alone_has_weight(tokenizer):
    example = chat.encode_pair(tokenizer, PAIR["prompt"], PAIR["completion"])
    _, y, weights = GemmaCausalLMPreprocessor(tokenizer, 48)([PAIR])
    targets = [token for token, is_target in zip(example.token_ids, example.is_target, strict=True) if is_target]
    assert y[weights > 0].tolist() == targets


def test_long_rows_are_refused_or_cut(tokenizer):
    with pytest.raises(ValueError, match="Example 0 has .* tokens, more than max_length=5. .*truncate=True"):
        GemmaCausalLMPreprocessor(tokenizer, 4)(["one two three green moon"])
    ids = [tokenizer.bos_token_id, *tokenizer.encode("one two three green moon")]
    x, y, weights = GemmaCausalLMPreprocessor(tokenizer, 4, truncate=True)(["one two three green moon"])
    assert x["token_ids"].tolist() == [ids[:4]] and y.tolist() == [ids[1:5]] and weights.all()
    with pytest.raises(
        ValueError, match="A prompt has .* more than sequence_length=3. Raise it, or pass truncate=True"
    ):
        GemmaCausalLMPreprocessor(tokenizer, 3).generate_preprocess("one two three")
    with pytest.raises(ValueError, match="`sequence_length` must be an integer >= 2. Received: sequence_length=1"):
        GemmaCausalLMPreprocessor(tokenizer, 1)
    with pytest.raises(ValueError, match="bears no loss: nothing in it in its first 3 tokens"):
        GemmaCausalLMPreprocessor(tokenizer, 2, truncate=True)([PAIR])


def test_prompts_to_arrays_and_arrays_to_text(tokenizer):
    preprocessor = GemmaCausalLMPreprocessor(tokenizer, 16)
    arrays = preprocessor.generate_preprocess(["red cat", "blue dog and"])
    assert arrays["token_ids"].shape == arrays["padding_mask"].shape == (2, 16)
    ids = [tokenizer.bos_token_id, *tokenizer.encode("red cat")]
    assert arrays["token_ids"][0].tolist() == ids + [0] * (16 - len(ids))
    assert preprocessor.generate_postprocess(arrays) == ["red cat", "blue dog and"]
    single = preprocessor.generate_preprocess("red cat")
    assert single["token_ids"].tolist() == arrays["token_ids"][0].tolist()
    assert preprocessor.generate_postprocess(single) == "red cat"
    again = GemmaCausalLMPreprocessor.from_config(preprocessor.get_config())
    assert again.sequence_length == 16 and again.tokenizer.model_proto == tokenizer.model_proto
    assert again.tokenizer.stop_token_ids == tokenizer.stop_token_ids


def first_loss(model, *data, **options):
    return model.fit(*data, batch_size=4, shuffle=False, verbose=0, **options).history["loss"][0]


def test_fit_takes_triples_as_arrays_and_as_data_sets(model):
    tf = pytest.importorskip("tensorflow")
    expected = first_loss(model, TEXTS)
    x, y, weights = model.preprocessor(TEXTS)
    assert first_loss(model, x, y, sample_weight=weights) == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x, y, sample_weight=weights, verbose=0) == pytest.approx(expected, rel=1e-5)
    for batch in (1, 2, 4):
        data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(batch)
        assert first_loss(model, data) == pytest.approx(expected, rel=1e-5)
    unbatched = tf.data.Dataset.from_tensor_slices((x, y, weights))
    assert first_loss(model, unbatched, validation_data=(x, y, weights)) == pytest.approx(expected, rel=1e-5)


def test_a_weight_weighs(model):
    x, y, weights = model.preprocessor(TEXTS)
    logits = np.asarray(to_host(model(x)), np.float64)
    log_probs = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    picked = np.take_along_axis(log_probs, y[..., None], axis=-1)[..., 0]
    uneven = weights * np.random.default_rng(1).uniform(0.05, 0.3, weights.shape).astype(np.float32)
    expected = -(picked * uneven).sum() / uneven.sum()
    assert first_loss(model, x, y, sample_weight=uneven) == pytest.approx(expected, rel=1e-5)


def test_without_weights_every_real_next_token_counts_once(model):
    x, y, weights = model.preprocessor(TEXTS)
    assert first_loss(model, x, y) == pytest.approx(first_loss(model, x, y, sample_weight=weights), rel=1e-5)


def test_a_data_set_without_end_is_read_as_far_as_it_is_used(model):
    tf = pytest.importorskip("tensorflow")
    endless = tf.data.Dataset.from_tensor_slices(TEXTS).batch(4).repeat()
    with pytest.raises(ValueError, match=r"The data set has no end. Leave out `.repeat\(\)` and pass `epochs`"):
        model.fit(endless, verbose=0)
    expected = first_loss(model, TEXTS)
    assert first_loss(model, endless, steps_per_epoch=2) == pytest.approx(expected, rel=1e-5)
    # Read example by example, a step takes a batch of them all the same.
    one_by_one = tf.data.Dataset.from_tensor_slices(TEXTS).repeat()
    assert first_loss(model, one_by_one, steps_per_epoch=1) == pytest.approx(expected, rel=1e-5)
    x, y, weights = model.preprocessor(TEXTS)
    triples = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(2).repeat()
    assert first_loss(model, triples, steps_per_epoch=1) == pytest.approx(expected, rel=1e-5)
    # Without a batch size the data set's own: the first batch alone, and what comes after is not read.
    read = []
    counted = (read.append(text) or [text] * 2 for text in ["cat", "dog", "sun"])
    model.fit(counted, steps_per_epoch=2, verbose=0)
    assert read == ["cat", "dog"]


def test_the_preprocessors_length_and_cut_are_what_fit_and_generate_go_by(model):
    length, truncate = model.preprocessor.sequence_length, model.preprocessor.truncate
    try:
        model.preprocessor.sequence_length = 8
        with pytest.raises(ValueError, match="more than max_length=8"):
            model.fit(TEXTS, verbose=0)
        cut = first_loss(model, TEXTS, truncate=True)
        model.preprocessor.truncate = True
        assert first_loss(model, TEXTS) == pytest.approx(cut, rel=1e-6)
        assert model.generate([[2, 5]], stop_token_ids=None)["token_ids"].shape == (1, 8)
    finally:
        model.preprocessor.sequence_length, model.preprocessor.truncate = length, truncate


def test_predict_takes_text(model, tokenizer):
    found = model.predict(["cat", "red cat sun"], verbose=0)
    ids = [tokenizer.bos_token_id, *tokenizer.encode("cat"), tokenizer.eos_token_id]
    alone = np.asarray(to_host(model({"token_ids": np.array([ids], np.int32)})))
    assert found.shape == (2, 16, tokenizer.vocabulary_size())
    np.testing.assert_allclose(found[:1, : len(ids)], alone, atol=1e-5)


@pytest.mark.parametrize(
    "x, y, weights, message",
    [
        ({"token_ids": np.ones((2, 4), int)}, np.ones((2, 5), int), None, "must share one shape"),
        ({"token_ids": np.ones((2, 4), int)}, np.ones((2, 4)), None, "'y' must be integers"),
        ({"token_ids": np.ones((2, 4), int)}, np.ones((2, 4), int), -np.ones((2, 4)), "`sample_weight` must be 0 or"),
        ({"token_ids": np.full((2, 4), 999)}, np.ones((2, 4), int), None, "Token ids must be from 0 to"),
        (["a"], np.ones((2, 4), int), None, "`y` is made from `x`"),
    ],
)
def test_triples_that_do_not_fit_are_refused(model, x, y, weights, message):
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, sample_weight=weights, verbose=0)


@pytest.mark.needs("tensorflow")
def test_tokenizer_and_preprocessor_map_a_data_set(model, tokenizer):
    import tensorflow as tf

    preprocessor = model.preprocessor
    expected = preprocessor(TEXTS)
    texts = tf.data.Dataset.from_tensor_slices(TEXTS)
    for data in (texts.map(preprocessor).batch(4), texts.batch(4).map(preprocessor)):
        ((x, y, weights),) = list(data)
        for found, wanted in zip((x["token_ids"], x["padding_mask"], y, weights), _flat(expected), strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted)
        assert first_loss(model, data) == pytest.approx(first_loss(model, TEXTS), rel=1e-5)
    pairs = tf.data.Dataset.from_tensor_slices({"prompts": ["red cat"], "responses": ["cat red"]}).map(preprocessor)
    ((x, y, weights),) = list(pairs)
    for found, wanted in zip((x["token_ids"], x["padding_mask"], y, weights), _flat(preprocessor([PAIR])), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted[0])
    single = _flat(preprocessor({"prompts": "red cat", "responses": "cat red"}))
    for found, wanted in zip(single, _flat(preprocessor([PAIR])), strict=True):
        np.testing.assert_array_equal(found, wanted[0])
    ids = [tokenizer.encode(text) for text in TEXTS]
    assert [row.numpy().tolist() for row in texts.map(tokenizer)] == ids
    (ragged,) = list(texts.batch(4).map(tokenizer))
    assert ragged.to_list() == ids


def _flat(triple):
    x, y, weights = triple
    return x["token_ids"], x["padding_mask"], y, weights


def test_a_text_may_go_without_bos_and_eos(model, tokenizer):
    ids = tokenizer.encode("blue dog")
    bare = GemmaCausalLMPreprocessor(tokenizer, 12, add_start_token=False, add_end_token=False)
    x, y, weights = bare("blue dog")
    assert x["token_ids"].tolist() == ids + [0] * (12 - len(ids)) and y.tolist()[: len(ids) - 1] == ids[1:]
    assert weights.sum() == len(ids) - 1
    assert bare.generate_preprocess("blue dog")["token_ids"].tolist() == ids + [0] * (12 - len(ids))
    assert GemmaCausalLMPreprocessor.from_config(bare.get_config()).marks == (False, False)
    whole = model.preprocessor
    expected = first_loss(model, {"token_ids": np.array([ids])})
    model.preprocessor = GemmaCausalLMPreprocessor(tokenizer, 32, add_start_token=False, add_end_token=False)
    try:
        assert first_loss(model, ["blue dog"]) == pytest.approx(expected, rel=1e-5)
        assert model.evaluate([PAIR], verbose=0) > 0
    finally:
        model.preprocessor = whole


@pytest.mark.parametrize("asked, steps", [({}, 2), ({"batch_size": 1}, 4)])
def test_a_step_takes_the_batch_of_the_data_set_or_as_many_rows_as_are_asked_for(model, asked, steps):
    tf = pytest.importorskip("tensorflow")
    seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    model.fit(tf.data.Dataset.from_tensor_slices(TEXTS).batch(2), callbacks=[count], verbose=0, **asked)
    assert len(seen) == steps


def test_batches_of_other_widths_are_filled_up():
    batches = [
        ({"token_ids": np.full((1, width), 3), "padding_mask": np.ones((1, width), bool)}, np.full((1, width), 4))
        for width in (2, 4, 3)
    ]
    x, y, weights, batch_size = triples.joined(batches, pad_token_id=7)
    assert x["token_ids"].tolist() == [[3, 3, 7, 7], [3, 3, 3, 3], [3, 3, 3, 7]] and batch_size == 1
    assert y.tolist() == [[4, 4, 7, 7], [4, 4, 4, 4], [4, 4, 4, 7]]
    assert x["padding_mask"].sum(axis=1).tolist() == [2, 4, 3] == (weights > 0).sum(axis=1).tolist()
