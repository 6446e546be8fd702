"""`fit` on every kind of data, its loss by hand from the logits, a user's own loss and metrics, low precision."""

import warnings

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer, Sampler
from gemma_keras.backends import to_host
from gemma_keras.text import chat

PROMPTS = ["red cat", "blue dog and sun", "one two", "green moon"]
RESPONSES = ["cat red", "sun", "two one three", "moon"]
TEXTS = ["red cat sun", "blue dog", "one two three green moon", "cat"]
PAIRS = [{"prompt": prompt, "completion": response} for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
CONVERSATIONS = [
    [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
]


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train([*PROMPTS, *RESPONSES, *TEXTS], 300, "gemma3")


def make_model(tokenizer, dtype="float32", **changes):
    config = GemmaConfig(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8,
        hidden_dim=16, intermediate_dim=32,
    )  # fmt: skip
    return GemmaCausalLM(GemmaBackbone(config.replace(**changes), dtype=dtype, seed=3), tokenizer)


@pytest.fixture(scope="module")
def still_model(tokenizer):
    """A compiled model whose weights do not move, so that every `fit` begins with the same ones and nothing is compiled
    twice."""
    model = make_model(tokenizer)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def first_loss(model, data, **options):
    return model.fit(data, batch_size=4, epochs=1, shuffle=False, verbose=0, **options).history["loss"][0]


def loss_by_hand(model, examples):
    """Mean negative log-probability of the targets, one unpadded row at a time, in float64."""
    total, count = 0.0, 0
    for example in examples:
        logits = to_host(model({"token_ids": np.array([example.token_ids], np.int32)}))[0].astype(np.float64)
        for position in range(1, len(example.token_ids)):
            if example.is_target[position]:
                row = logits[position - 1]
                total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[example.token_ids[position]]
                count += 1
    return total / count


@pytest.fixture(scope="module")
def pair_loss(still_model, tokenizer):
    return loss_by_hand(still_model, [chat.encode_pair(tokenizer, row["prompt"], row["completion"]) for row in PAIRS])


@pytest.fixture(scope="module")
def text_loss(still_model, tokenizer):
    return loss_by_hand(still_model, [chat.encode_text(tokenizer, text) for text in TEXTS])


def as_dataset(rows):
    import datasets

    return datasets.Dataset.from_list(rows)


def as_tf_data(columns, batched):
    tf = pytest.importorskip("tensorflow")

    dataset = tf.data.Dataset.from_tensor_slices(columns)
    return dataset.batch(4) if batched else dataset


def as_loader(rows):
    torch = pytest.importorskip("torch")

    return torch.utils.data.DataLoader(rows, batch_size=4)


PAIR_KINDS = {
    "list of prompt and completion": lambda: PAIRS,
    "dict of prompt and completion": lambda: {"prompt": PROMPTS, "completion": RESPONSES},
    "prompts and responses": lambda: {"prompts": PROMPTS, "responses": RESPONSES},
    "conversations": lambda: CONVERSATIONS,
    "datasets.Dataset": lambda: as_dataset(PAIRS),
    "datasets.Dataset of messages": lambda: as_dataset([{"messages": turns} for turns in CONVERSATIONS]),
    "tf.data.Dataset": lambda: as_tf_data({"prompts": PROMPTS, "responses": RESPONSES}, batched=False),
    "tf.data.Dataset in batches": lambda: as_tf_data({"prompts": PROMPTS, "responses": RESPONSES}, batched=True),
    "DataLoader": lambda: as_loader(PAIRS),
    "DataLoader of conversations": lambda: as_loader(CONVERSATIONS),
}
TEXT_KINDS = {
    "strings": lambda: TEXTS,
    "array of strings": lambda: np.array(TEXTS),
    "datasets.Dataset": lambda: as_dataset([{"text": text} for text in TEXTS]),
    "tf.data.Dataset": lambda: as_tf_data(TEXTS, batched=True),
    "DataLoader": lambda: as_loader(TEXTS),
}


@pytest.mark.parametrize("kind", PAIR_KINDS)
def test_pairs_of_every_kind_give_the_loss_of_the_response_alone(still_model, pair_loss, kind):
    assert first_loss(still_model, PAIR_KINDS[kind]()) == pytest.approx(pair_loss, rel=1e-5)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_text_of_every_kind_gives_the_same_loss(still_model, text_loss, kind):
    assert first_loss(still_model, TEXT_KINDS[kind]()) == pytest.approx(text_loss, rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_arrays_give_the_same_loss_whatever_their_padding(still_model, tokenizer, pair_loss, side):
    token_ids, padding_mask, is_target = (np.zeros((4, 48), kind) for kind in (np.int32, bool, bool))
    for row, pair in enumerate(PAIRS):
        example = chat.encode_pair(tokenizer, pair["prompt"], pair["completion"])
        length = len(example.token_ids)
        place = slice(0, length) if side == "right" else slice(48 - length, 48)
        token_ids[row, place], padding_mask[row, place], is_target[row, place] = (
            example.token_ids,
            True,
            example.is_target,
        )
    token_ids[~padding_mask] = 77  # whatever stands there must not matter
    arrays = {"token_ids": token_ids, "padding_mask": padding_mask, "is_target": is_target}
    assert first_loss(still_model, arrays) == pytest.approx(pair_loss, rel=1e-5)


def test_validation_data_of_another_kind(still_model, pair_loss, text_loss):
    history = still_model.fit(PAIRS, batch_size=4, verbose=0, validation_data=TEXTS).history
    assert history["loss"][0] == pytest.approx(pair_loss, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(text_loss, rel=1e-5)
    assert still_model.evaluate(CONVERSATIONS, verbose=0) == pytest.approx(pair_loss, rel=1e-5)


@pytest.mark.parametrize("given", [-7.0, [[-1.0, -2.0, np.inf]]])
def test_the_loss_is_the_weighted_mean_of_a_sum_or_of_log_probs(still_model, given):
    """(1 + 3 * 2) / (1 + 3) nats: the model gives a sum where it knows the weights, and log-probabilities else."""
    weights = np.float32([[1, 3, 0]])
    loss = still_model.compute_loss({}, None, keras.ops.convert_to_tensor(np.float32(given)), weights)
    assert float(loss) == 7 / 4


def test_a_smaller_last_batch_is_trained_on_too(still_model, tokenizer):
    # Two batches of 3 and 1: Keras averages them by rows.
    parts = [
        loss_by_hand(still_model, [chat.encode_text(tokenizer, text) for text in part])
        for part in (TEXTS[:3], TEXTS[3:])
    ]
    loss = still_model.fit(TEXTS, batch_size=3, shuffle=False, verbose=0).history["loss"][0]
    assert loss == pytest.approx((3 * parts[0] + parts[1]) / 4, rel=1e-5)


def test_a_users_loss_and_metric_see_full_logits_with_one_warning(tokenizer, pair_loss):
    model = make_model(tokenizer)
    shapes = []

    def own_loss(target_ids, logits):
        shapes.append((tuple(target_ids.shape[1:]), tuple(logits.shape[1:])))
        picked = keras.ops.take_along_axis(
            keras.ops.log_softmax(logits), keras.ops.cast(target_ids, "int32")[..., None], axis=-1
        )
        return -picked[..., 0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.compile(
            keras.optimizers.SGD(0.0),
            loss=own_loss,
            weighted_metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="crossentropy")],
        )
        history = model.fit(PAIRS, batch_size=4, verbose=0).history
    ours = [warning for warning in caught if "logits of the whole vocabulary" in str(warning.message)]
    assert len(ours) == 1 and ours[0].filename == __file__
    width = shapes[0][0][0]
    assert set(shapes) == {((width,), (width, tokenizer.vocabulary_size()))}
    # A weighted metric divides by the loss-bearing tokens; a plain function loss by every position of the batch, as
    # Keras does.
    assert history["crossentropy"][0] == pytest.approx(pair_loss, rel=1e-5)
    targets = sum(sum(chat.encode_pair(tokenizer, row["prompt"], row["completion"]).is_target) for row in PAIRS)
    assert history["loss"][0] == pytest.approx(pair_loss * targets / (4 * width), rel=1e-4)


def test_a_metric_beside_our_loss_leaves_the_loss_as_it_is(tokenizer, pair_loss):
    model = make_model(tokenizer)
    with pytest.warns(UserWarning, match="logits of the whole vocabulary"):
        model.compile(keras.optimizers.SGD(0.0), weighted_metrics=["sparse_categorical_accuracy"])
    history = model.fit(PAIRS, batch_size=4, verbose=0).history
    assert history["loss"][0] == pytest.approx(pair_loss, rel=1e-5)
    assert 0 <= history["sparse_categorical_accuracy"][0] <= 1


def test_fit_learns_and_generate_gives_back_what_was_learned(tokenizer):
    model = make_model(tokenizer, hidden_dim=32, intermediate_dim=64)
    model.compile(keras.optimizers.Adam(1e-2), sampler="greedy")
    losses = model.fit(PAIRS, batch_size=4, epochs=60, verbose=0).history["loss"]
    assert losses[-1] < 0.05 < losses[0]
    asked = [conversation[:1] for conversation in CONVERSATIONS]
    assert model.generate(asked, max_length=40) == RESPONSES


@pytest.mark.parametrize("dtype", ["mixed_bfloat16"])
def test_mixed_precision_trains_float32_weights(tokenizer, pair_loss, dtype):
    model = make_model(tokenizer, dtype)
    model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.0))
    losses = model.fit(PAIRS, batch_size=4, epochs=8, verbose=0).history["loss"]
    # bfloat16 keeps 8 bits of each activation.
    assert losses[0] == pytest.approx(pair_loss, rel=1e-2)
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


def test_bfloat16_as_keras_float_type_does_not_touch_token_ids(tokenizer):
    """Keras casts targets to its float type, in which 771 is 772: losses must be those of the ids that were given."""
    token_ids = np.array([[2, 771, 515, 899, 771, 263]], np.int32)
    config = make_model(tokenizer).config.replace(vocabulary_size=1000)
    model = GemmaCausalLM(GemmaBackbone(config, dtype="float32", seed=3))
    # Embeddings this large make the logits of neighbouring ids differ by several nats.
    model.backbone.token_embedding.embeddings.assign(20 * to_host(model.backbone.token_embedding.embeddings.value))
    by_hand = loss_by_hand(model, [chat.EncodedExample(token_ids[0].tolist(), [False] + [True] * 5)])
    before = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    try:
        for options in ({}, {"weighted_metrics": ["sparse_categorical_accuracy"]}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.compile(keras.optimizers.SGD(0.0), **options)
            # Keras' running mean may be bfloat16 too, hence 2^-8.
            loss = model.fit({"token_ids": token_ids}, batch_size=1, verbose=0).history["loss"][0]
            assert float(loss) == pytest.approx(by_hand, rel=2**-8)
    finally:
        keras.config.set_floatx(before)


def test_training_weights_in_half_precision_warns(tokenizer):
    model = make_model(tokenizer, "bfloat16")
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.warns(UserWarning, match="mixed_bfloat16"):
        assert np.isfinite(first_loss(model, TEXTS))


def test_samplers_by_name_and_by_object(tokenizer):
    model = make_model(tokenizer)
    for sampler, expected in (("greedy", Sampler(0.0)), ("top_k", Sampler(top_k=5)), (Sampler(0.3), Sampler(0.3))):
        model.compile(sampler=sampler)
        assert model.sampler == expected
    with pytest.raises(ValueError, match="`sampler` must be"):
        model.compile(sampler="other")


def test_targets_of_the_users_own_are_refused(still_model):
    with pytest.raises(ValueError, match="`y` is made from `x`"):
        still_model.fit(TEXTS, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="a weight a token as `sample_weight`"):
        still_model.fit(TEXTS, class_weight={0: 2.0})
