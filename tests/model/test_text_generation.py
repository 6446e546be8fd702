"""Stop strings, several answers a prompt, streaming, and draws with and without a seed."""

import random

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaTokenizer, Sampler
from gemma_keras.generation import Decoding, generate_tokens
from gemma_keras.random import uniforms
from gemma_keras.text.stop_strings import StopStrings

TURNS = [{"role": "user", "content": "red cat"}]


@pytest.fixture(scope="module")
def model(tiny_configs):
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog and sun", "one two three", "green moon"], 300, "gemma3")
    sizes = {"vocabulary_size": tokenizer.vocabulary_size(), "num_layers": 1, "local_layers": (True,)}
    return GemmaCausalLM(GemmaBackbone(tiny_configs["gemma3"].replace(**sizes), seed=2), tokenizer)


@pytest.fixture(scope="module")
def answer(model):
    """What the model says to "red cat", 40 tokens of it, unstopped."""
    return model.generate("red cat", max_length=48, seed=6, stop_token_ids=None, strip_prompt=True)


def test_decoding_in_parts_samples_what_one_call_does(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma2"], seed=2))
    prompts = np.array([[0, 0, 2, 5, 6], [2, 9, 10, 11, 12]], np.int32)
    draws = np.stack([uniforms(0, "draw", row, shape=12) for row in range(2)])
    free = generate_tokens(model, prompts, prompts > 0, 12, draws, Sampler(), ()).token_ids
    arguments = (model, prompts, prompts > 0, 12, draws, Sampler(), (int(free[0, 6]),))
    whole = generate_tokens(*arguments)
    parts = Decoding(*arguments)
    widths = []
    while not parts.is_over:
        widths.append(parts.generated().token_ids.shape[1])
        parts.advance(3)
    assert widths == [1, 4, 7, 10][: len(widths)] and len(widths) > 2
    found = parts.generated()
    np.testing.assert_array_equal(found.token_ids, whole.token_ids[:, : found.token_ids.shape[1]])
    np.testing.assert_array_equal(found.response_mask, whole.response_mask[:, : found.token_ids.shape[1]])
    np.testing.assert_array_equal(found.finished, whole.finished)
    np.testing.assert_allclose(found.log_probs, whole.log_probs[:, : found.token_ids.shape[1]], atol=1e-5)


def test_a_row_ended_by_hand_samples_no_more(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=2))
    prompts = np.array([[2, 5, 6], [2, 9, 10]], np.int32)
    draws = np.stack([uniforms(0, "draw", row, shape=8) for row in range(2)])
    parts = Decoding(model, prompts, prompts > 0, 8, draws, Sampler(), ())
    parts.advance(2)
    parts.end(np.array([True, False]))
    parts.advance(5)
    assert parts.generated().response_mask.sum(axis=1).tolist() == [3, 8] and parts.is_over


@pytest.mark.once
def test_an_answer_ends_before_the_first_stop_string(model, answer):
    assert len(answer) > 20
    stop = answer[8:11]
    options = {"max_length": 48, "seed": 6, "stop_token_ids": None}
    expected = answer[: answer.index(stop)]
    assert model.generate("red cat", strip_prompt=True, stop=[stop, "never there"], **options) == expected
    assert model.generate("red cat", stop=stop, **options) == "red cat" + expected
    both = model.generate(["red cat", "one"], strip_prompt=True, stop=stop, **options)
    unstopped = model.generate(["red cat", "one"], strip_prompt=True, **options)
    assert both == [text.split(stop)[0] for text in unstopped]


@pytest.mark.once
def test_pieces_of_a_stream_join_to_the_whole_answer(model, answer):
    options = {"max_length": 48, "seed": 6, "stop_token_ids": None}
    found = list(model.stream("red cat", **options))
    assert "".join(found) == answer and len(found) > 10 and "" not in found
    stop = answer[8:11]
    assert "".join(model.stream("red cat", stop=stop, **options)) == answer[: answer.index(stop)]
    whole = model.generate(TURNS, max_length=48, seed=3)
    assert "".join(model.stream(TURNS, max_length=48, seed=3)) == whole


@pytest.mark.once
def test_a_stream_never_shows_half_a_character(model, monkeypatch):
    text = "é→ moon é"
    ids = model.tokenizer.encode(text)
    assert len(ids) > len(text), "the arrows are bytes here"
    prompt = [model.tokenizer.bos_token_id, *model.tokenizer.encode("red")]
    shown = []

    class Spelling:
        """A decoding that says `text`, a token at a time."""

        def __init__(self, *arguments):
            self.count = 1

        is_over = property(lambda self: self.count >= len(ids))

        def advance(self, steps):
            self.count += steps

        def generated(self):
            from gemma_keras.generation import Generated

            row = np.array([ids[: self.count]])
            return Generated(row, row >= 0, np.array([False]), row * 0.0)

    monkeypatch.setattr("gemma_keras.text_generation.Decoding", Spelling)
    for piece in model.stream("red", max_length=len(prompt) + len(ids)):
        assert "\ufffd" not in piece
        shown.append(piece)
    assert "".join(shown) == text and len(shown) > 3


@pytest.mark.once
@pytest.mark.parametrize(
    "text, safe",
    [
        ("so far", "so far"),
        ("so far\n", "so far"),
        ("so far\nQ", "so far"),
        ("so\nQ far", "so\nQ far"),
        ("so\nQ:", "so\nQ:"),
        ("a\ufffd", "a"),
    ],
)
def test_what_may_become_a_stop_string_is_held_back(text, safe):
    assert StopStrings(["\nQ:", "zz"]).safe_part(text) == safe


@pytest.mark.once
def test_the_earliest_stop_string_cuts():
    assert StopStrings(["b", "a"]).cut("xxabxx") == ("xx", True)
    assert StopStrings("b").cut("xxxx") == ("xxxx", False) and StopStrings("b").cut("bx") == ("", True)
    for wrong in ("", ["a", ""], [3]):
        with pytest.raises(ValueError, match="`stop` must be strings that are not empty"):
            StopStrings([wrong] if wrong == "" else wrong)


@pytest.mark.once
def test_several_answers_a_prompt_stand_one_after_the_other(model):
    options = {"max_length": 48, "strip_prompt": True, "seed": 3}
    three = model.generate("red cat", num_return_sequences=3, **options)
    assert three == model.generate(["red cat"] * 3, **options) and len(set(three)) > 1
    pairs = model.generate(["red cat", "one"], num_return_sequences=2, **options)
    assert pairs == model.generate(["red cat", "red cat", "one", "one"], **options)
    ids = model.generate([[2, 5]], num_return_sequences=2, max_length=8, seed=3)
    assert ids["token_ids"].shape == (2, 8)
    with pytest.raises(ValueError, match="`num_return_sequences` must be an integer >= 1. Received: 0"):
        model.generate("red cat", num_return_sequences=0)


@pytest.mark.once
def test_without_a_seed_every_call_draws_anew_and_keras_seed_repeats_it(model):
    options = {"max_length": 48, "strip_prompt": True, "stop_token_ids": None}
    keras.utils.set_random_seed(11)
    first, second = (model.generate("red cat", **options) for _ in range(2))
    assert first != second
    keras.utils.set_random_seed(11)
    assert [model.generate("red cat", **options) for _ in range(2)] == [first, second]
    state = random.getstate()
    assert model.generate("red cat", seed=5, **options) == model.generate("red cat", seed=5, **options)
    assert random.getstate() == state


@pytest.mark.once
def test_the_seed_of_a_sampler_gives_new_text_each_call_and_the_same_series(model):
    options = {"max_length": 48, "strip_prompt": True, "stop_token_ids": None}
    series = []
    for _ in range(2):
        model.compile(sampler=Sampler(top_k=20, seed=8))
        series.append([model.generate("red cat", **options) for _ in range(2)])
    assert series[0] == series[1] and series[0][0] != series[0][1]
    model.compile(sampler=Sampler(top_k=20, seed=9))
    assert model.generate("red cat", **options) != series[0][0]


@pytest.mark.once
def test_padded_arrays_bring_the_room_for_the_answer(model):
    ids = np.array([[2, 5, 6, 0, 0, 0, 0, 0], [2, 7, 8, 9, 0, 0, 0, 0]])
    found = model.generate({"token_ids": ids, "padding_mask": ids > 0}, seed=1, stop_token_ids=None)
    assert found["token_ids"].shape == (2, 8)
    np.testing.assert_array_equal(found["token_ids"][ids > 0], ids[ids > 0])
    assert found["padding_mask"].all()


@pytest.mark.once
def test_what_stream_and_stop_do_not_take(model):
    with pytest.raises(ValueError, match="`stream` takes one text.*Received: 2 of kind 'texts'"):
        model.stream(["a", "b"], max_length=20)
    with pytest.raises(ValueError, match="`stop` ends text, and the prompts are ids: pass stop_token_ids"):
        model.generate([[2, 5]], max_length=8, stop="x")
    with pytest.raises(ValueError, match="The longest prompt has 9 tokens and leaves no room"):
        model.generate([[2, 5], [2] * 9], max_length=8)


@pytest.mark.parametrize("floatx", ["bfloat16", pytest.param("float16", marks=pytest.mark.once)])
def test_half_precision_as_keras_float_type_generates_what_the_explicit_type_does(tiny_configs, floatx):
    config = tiny_configs["gemma3"]
    prompts = {"max_length": 40, "seed": 1, "stop_token_ids": None}
    expected = GemmaCausalLM(GemmaBackbone(config, dtype=floatx, seed=2)).generate([[2, 5, 6]], **prompts)
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    try:
        model = GemmaCausalLM(GemmaBackbone(config, seed=2))
        assert model.backbone.token_embedding.embeddings.dtype == floatx
        found = model.generate([[2, 5, 6]], **prompts)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    np.testing.assert_array_equal(found["token_ids"], expected["token_ids"])
