"""`GemmaRewardModel.fit` on preferences: loss and accuracy by hand, every shape of a row, and Keras' files."""

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaConfig, GemmaRewardModel, GemmaTokenizer
from gemma_keras.backends import to_host
from gemma_keras.text import chat

ROWS = [
    {"prompt": "red cat", "chosen": "cat red sun", "rejected": "no"},
    {"prompt": "blue dog", "chosen": "sun", "rejected": "moon moon dog"},
    {"prompt": "one", "chosen": "two three", "rejected": "cat"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(["red cat blue dog one two three", "sun moon no", "user model"], 300, "gemma3")


def make_model(tokenizer, seed=3):
    config = GemmaConfig(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8,
        hidden_dim=16, intermediate_dim=32,
    )  # fmt: skip
    return GemmaRewardModel(GemmaBackbone(config, seed=seed), tokenizer, seed=seed)


@pytest.fixture(scope="module")
def still_model(tokenizer):
    model = make_model(tokenizer)
    model.compile(keras.optimizers.SGD(0.0))
    return model


@pytest.fixture(scope="module")
def differences(still_model, tokenizer):
    """Score of the chosen response less that of the rejected one, each row alone and without padding."""
    found = []
    for row in ROWS:
        start = chat.encode_prompt(tokenizer, row["prompt"])
        ids = [start + chat.encode_response(tokenizer, row[name]) for name in ("chosen", "rejected")]
        scores = [float(to_host(still_model({"token_ids": np.array([each], np.int32)}))[0]) for each in ids]
        found.append(scores[0] - scores[1])
    return np.array(found)


def history(model, data, **options):
    return {name: values[0] for name, values in model.fit(data, verbose=0, **options).history.items()}


def test_loss_and_accuracy_are_those_of_bradley_and_terry(still_model, differences):
    assert len(set(np.sign(differences))) == 2, "a row of each order, or the accuracy says nothing"
    found = history(still_model, ROWS)
    assert found["loss"] == pytest.approx(np.log1p(np.exp(-differences)).mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((differences > 0).mean(), abs=1e-6)
    result = still_model.evaluate(ROWS, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(found["loss"], rel=1e-6)
    margins = [0.5, 0.0, 2.0]
    marked = [{**row, "margin": margin} for row, margin in zip(ROWS, margins, strict=True)]
    assert history(still_model, marked)["loss"] == pytest.approx(
        np.log1p(np.exp(margins - differences)).mean(), rel=1e-5
    )


def user(text):
    return [{"role": "user", "content": text}]


def says(text):
    return [{"role": "assistant", "content": text}]


SHAPES = {
    "columns": {name: [row[name] for row in ROWS] for name in ROWS[0]},
    "conversations": [
        {"prompt": user(row["prompt"]), "chosen": says(row["chosen"]), "rejected": says(row["rejected"])}
        for row in ROWS
    ],
    "implicit prompt": [
        {name: user(row["prompt"]) + says(row[name]) for name in ("chosen", "rejected")} for row in ROWS
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_shape_give_one_loss(still_model, differences, shape):
    expected = np.log1p(np.exp(-differences)).mean()
    assert history(still_model, SHAPES[shape])["loss"] == pytest.approx(expected, rel=1e-5)


def test_fit_learns_the_order_and_a_file_goes_on_from_there(tokenizer, tmp_path):
    model = make_model(tokenizer)
    model.compile(keras.optimizers.Adam(3e-3))
    found = model.fit(ROWS, epochs=12, verbose=0, shuffle=False, validation_data=ROWS[:1]).history
    assert found["accuracy"][-1] == 1.0 and found["loss"][-1] < 0.2 * found["loss"][0] and "val_loss" in found
    model.reward_mean = 0.25
    model.save(tmp_path / "reward.keras")
    again = keras.saving.load_model(tmp_path / "reward.keras")
    assert again.reward_mean == 0.25 and again.tokenizer.model_proto == tokenizer.model_proto
    expected = model.fit(ROWS, epochs=2, verbose=0, shuffle=False).history["loss"]
    assert again.fit(ROWS, epochs=2, verbose=0, shuffle=False).history["loss"] == expected


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": "a", "chosen": "b"}, "Example 0 must be a dict with 'prompt', 'chosen' and 'rejected'"),
        ({"chosen": "a", "rejected": "b"}, "Example 0 has no 'prompt'"),
        ({"chosen": user("a") + says("b"), "rejected": user("c") + says("d")}, "must differ in their last turn alone"),
        ({"prompt": "a", "chosen": "red " * 60, "rejected": "b"}, "more than max_length=40"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "Example 0: a response must be a string. Received: 3"),
    ],
)
def test_rows_that_are_no_preference_are_refused(still_model, row, message):
    with pytest.raises(ValueError, match=message):
        still_model.fit([row], max_length=40, verbose=0)


def test_a_model_without_a_tokenizer_says_so(tokenizer):
    model = make_model(tokenizer)
    model.tokenizer = None
    with pytest.raises(ValueError, match="Text needs a tokenizer and this model has none"):
        model.fit(ROWS, verbose=0)
    with pytest.raises(ValueError, match="The training data is empty: expected at least one preference"):
        make_model(tokenizer).fit([], verbose=0)
