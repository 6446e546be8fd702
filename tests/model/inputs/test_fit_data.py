"""From a user's data to padded arrays: which positions bear loss, batch sizes, and what is refused with which words."""

import numpy as np
import pytest

from gemma_keras.inputs import fit_data
from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = pytest.mark.no_backend
BOS, EOS = 2, 1


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, "gemma3")


def prepared(data, tokenizer=None, max_length=64):
    return fit_data.prepare(data, tokenizer, max_length, 0, 300)


def test_text_is_bos_text_eos_and_predicts_all_but_bos(tokenizer):
    features, targets, weights, batch_size = prepared(["red cat"], tokenizer)
    ids = [BOS, *tokenizer.encode("red cat"), EOS]
    real = len(ids)
    assert features["token_ids"].shape == (1, 16) and batch_size is None
    assert features["token_ids"][0].tolist() == ids + [0] * (16 - real)
    assert features["padding_mask"][0].tolist() == [True] * real + [False] * (16 - real)
    assert targets[0, : real - 1].tolist() == ids[1:]
    assert weights[0].tolist() == [1.0] * (real - 1) + [0.0] * (17 - real)


def test_of_a_pair_the_response_and_its_end_of_turn_are_predicted(tokenizer):
    _, targets, weights, _ = prepared([{"prompt": "red cat", "completion": "blue dog"}], tokenizer)
    assert targets[0][weights[0] > 0].tolist() == [*tokenizer.encode("blue dog"), tokenizer.end_of_turn_id]


def test_conversational_columns_of_trl_equal_plain_ones(tokenizer):
    plain = prepared([{"prompt": "red cat", "completion": "blue dog"}], tokenizer)
    turns = prepared(
        [
            {
                "prompt": [{"role": "user", "content": "red cat"}],
                "completion": [{"role": "assistant", "content": "blue dog"}],
            }
        ],
        tokenizer,
    )
    for ours, expected in zip((turns[0]["token_ids"], *turns[1:3]), (plain[0]["token_ids"], *plain[1:3]), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_row_padded_on_the_left_predicts_nothing_before_its_second_token():
    arrays = {"token_ids": np.array([[0, 0, 5, 6, 7]]), "padding_mask": np.array([[0, 0, 1, 1, 1]])}
    _, targets, weights, _ = prepared(arrays)
    assert weights.tolist() == [[0, 0, 1, 1, 0]]
    assert targets[0, 2:4].tolist() == [6, 7]


def test_rows_of_ids_need_no_tokenizer():
    rows = [
        {"token_ids": [2, 5, 6], "is_target": [False, False, True]},
        {"token_ids": [0, 2, 7], "padding_mask": [0, 1, 1]},
    ]
    features, targets, weights, _ = prepared(rows)
    assert features["token_ids"][:, :3].tolist() == [[2, 5, 6], [2, 7, 0]]
    assert targets[weights > 0].tolist() == [6, 7]
    np.testing.assert_array_equal(prepared(np.array([[2, 5, 6]]))[0]["token_ids"], [[2, 5, 6]])


def test_batches_are_taken_apart_and_their_size_kept(tokenizer):
    batches = [
        {"prompt": [b"red", b"cat"], "completion": [b"dog", b"moon"]},
        {"prompt": [b"sun"], "completion": [b"red"]},
    ]
    features, _, _, batch_size = prepared(iter(batches), tokenizer)
    rows = [{"prompt": p, "completion": c} for p, c in (("red", "dog"), ("cat", "moon"), ("sun", "red"))]
    np.testing.assert_array_equal(features["token_ids"], prepared(rows, tokenizer)[0]["token_ids"])
    assert batch_size == 2


def test_a_batch_of_conversations_that_a_loader_turned_inside_out(tokenizer):
    batch = [
        {"role": ["user", "user"], "content": ["red", "cat"]},
        {"role": ["model", "model"], "content": ["dog", "sun"]},
    ]
    rows = [
        [{"role": "user", "content": a}, {"role": "model", "content": b}] for a, b in (("red", "dog"), ("cat", "sun"))
    ]  # fmt: skip
    found, _, _, batch_size = prepared(iter([batch]), tokenizer)
    np.testing.assert_array_equal(found["token_ids"], prepared(rows, tokenizer)[0]["token_ids"])
    assert batch_size == 2


def test_loss_positions_are_those_with_weight_in_order():
    targets = np.arange(80).reshape(2, 40)
    weights = np.zeros((2, 40), np.float32)
    weights[0, [3, 30, 31]] = 1
    weights[1, 5] = 1
    positions, chosen, chosen_weights = fit_data.loss_positions(targets, weights)
    assert positions.shape == (2, 16)
    assert positions[0, :3].tolist() == [3, 30, 31] and positions[1, 0] == 5
    assert chosen[0, :3].tolist() == [3, 30, 31] and chosen[1, 0] == 45
    assert chosen_weights.sum(axis=1).tolist() == [3, 1] and chosen_weights[:, 0].tolist() == [1, 1]
    weights[0, :39] = 1
    positions, same, _ = fit_data.loss_positions(targets, weights)
    assert positions is None and same is targets


@pytest.mark.parametrize(
    "data, text",
    [
        ("red cat", "must be a list of examples, not one string"),
        ([], "training data is empty"),
        (7, "`x` must be a list, a dict of columns, arrays, or a data set. Received: int"),
        ([7], "Example 0 must be a string"),
        (["red", {"question": "?"}], r"Example 1 must be a string.*Received: \{'question'"),
        (
            {"prompt": ["a", "b"], "completion": ["c"]},
            r"same number of rows. Received: \{'prompt': 2, 'completion': 1\}",
        ),
        (["red", "moon " * 80], r"Example 1 has \d+ tokens, more than max_length=64"),
        ([{"prompt": "a", "completion": None}], "Example 0: a response must be a string. Received: None"),
        ([[{"role": "user", "content": "a"}]], "Example 0 bears no loss"),
        ([[{"role": "wizard", "content": "a"}]], "Example 0: Unknown role"),
        ([{"token_ids": [2, 5], "is_target": [True]}], "Example 0: .* must have one length"),
        ({"token_ids": np.array([[2, 300]])}, "Token ids must be from 0 to 299, the model's vocabulary. Received: 300"),
        ({"token_ids": np.array([[2, -1]])}, "Received: -1"),
        ({"token_ids": np.array([2, 5])}, r"must be integers \(b, t\). Received: shape \(2,\)"),
        ({"token_ids": np.array([[2.0, 5.0]])}, "dtype float64"),
        ({"token_ids": np.array([[2, 5]]), "padding_mask": np.ones((1, 3))}, r"must share one shape \(b, t\)"),
        ({"token_ids": np.array([[2, 5]]), "is_target": np.zeros((1, 2))}, "No token bears loss"),
    ],
)
def test_what_is_refused(tokenizer, data, text):
    with pytest.raises(ValueError, match=text):
        prepared(data, tokenizer)


def test_text_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="Text needs a tokenizer and this model has none"):
        prepared(["red cat"])
