"""JSON of models from elsewhere that is valid and absurd, and arguments of the wrong kind: one line that names the file
or the argument, of the class that the command line shows without a traceback."""

import json

import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
from gemma_keras.checkpoints import hugging_face_reader, hugging_face_writer, names, peft, resolve
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.errors import InputError
from gemma_keras.lora_options import LoraOptions

pytestmark = [pytest.mark.once, pytest.mark.fault("hostile files and settings")]

CONFIG = GemmaConfig(
    vocabulary_size=300, num_layers=1, num_query_heads=1, num_key_value_heads=1, head_dim=8, hidden_dim=8,
    intermediate_dim=8, family="gemma3", use_post_norms=True, use_query_key_norm=True, query_scale=8**-0.5,
    sliding_window=4, local_layers=(True,), local_rope_theta=1e4,
)  # fmt: skip
HUGE = 10**400  # valid JSON, and more than a float holds
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(["user model one two three"] * 9, 300, "gemma3")


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A sound folder, to be damaged."""
    hugging_face_writer.write_config(tmp_path, CONFIG, "float32", {"reward_mean": 0.0, "reward_std": 1.0})
    shapes = names.expected_shapes(CONFIG, with_score=True)
    hugging_face_writer.write_weights(tmp_path, [(name, np.ones(shape, np.float32)) for name, shape in shapes.items()])
    tokenizer.save(tmp_path)
    return tmp_path


@pytest.fixture
def adapter(tmp_path):
    options = LoraOptions(rank=2, targets=("q_proj",))
    peft.write_adapter(tmp_path, CONFIG, options, [("layers.0.q_proj", np.ones((8, 2)), np.ones((2, 8)))])
    return tmp_path


def refused(read, *arguments, kind=CheckpointError) -> str:
    with pytest.raises(kind) as error:
        read(*arguments)
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


def change(file, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    "key",
    ["rms_norm_eps", "query_pre_attn_scalar", "sliding_window", "final_logit_softcapping", "reward_mean", "reward_std"],
)
@pytest.mark.parametrize("value", [HUGE, -HUGE, True, "1", [1.0]])
def test_numbers_of_a_model(folder, key, value):
    change(folder / "config.json", **{key: value})
    text = refused(resolve.open_model, folder)
    assert "config.json" in text and f"`{key}` must be" in text


@pytest.mark.parametrize("value", [HUGE, {"factor": HUGE, "rope_type": "linear"}])
def test_rotary_numbers_of_a_model(folder, value):
    inside = value if isinstance(value, dict) else {"rope_theta": value}
    change(folder / "config.json", rope_parameters={"full_attention": inside})
    assert "must be a number > 0" in refused(hugging_face_reader.read_config, folder)


@pytest.mark.parametrize("key", ["lora_alpha", "lora_dropout"])
@pytest.mark.parametrize("value", [HUGE, True, "1", [1.0]])
def test_numbers_of_an_adapter(adapter, key, value):
    change(adapter / "adapter_config.json", **{key: value})
    text = refused(peft.read_adapter, adapter, CONFIG)
    assert "adapter_config.json" in text and f"`{key}` must be a number" in text


@pytest.mark.parametrize("value", [True, 5, "score", {"score": 1}, ["score", 1], [["score"]], ["lm_head"]])
def test_modules_to_save_of_an_adapter(adapter, value):
    change(adapter / "adapter_config.json", modules_to_save=value)
    text = refused(peft.read_adapter, adapter, CONFIG)
    assert "adapter_config.json" in text and "`modules_to_save` may name the reward head" in text


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("alone", [True, False])
def test_deeply_nested_json(folder, name, alone):
    if alone:  # without tokenizer.model beside it
        (folder / "tokenizer.model").unlink()
    (folder / name).write_text(DEEP)
    assert name in refused(resolve.open_model, folder)
    if name != "config.json":
        assert name in refused(resolve.open_tokenizer, folder)


@pytest.mark.parametrize("value", [HUGE, float("inf"), -1, "x", None])
def test_ids_of_added_tokens(folder, value):
    change(folder / "tokenizer.json", added_tokens=[{"id": value, "content": "<pad>", "special": True}])
    (folder / "tokenizer.model").unlink()
    assert "tokenizer.json" in refused(resolve.open_tokenizer, folder)


def test_a_home_of_nobody():
    text = refused(resolve.open_model, "~no_such_user_here/model")
    assert text.startswith("~no_such_user_here/model: no such folder or file")


def test_half_of_a_surrogate_pair(tokenizer):
    for text in ("one\ud83d", "\udcff", ["one", "\ud800"]):
        encode = tokenizer.encode if isinstance(text, str) else tokenizer.encode_batch
        assert "half of a surrogate pair" in refused(encode, text, kind=InputError)
    assert tokenizer.decode(tokenizer.encode("one 🙂")) == "one 🙂"


@pytest.fixture(scope="module")
def model(tokenizer):
    return GemmaCausalLM(GemmaBackbone(CONFIG, seed=1), tokenizer)


@pytest.mark.parametrize("value", ["none", "AUTO", "", 5, [1.5], [None], ["1"], [True], [[1]], {"ids": [1]}])
def test_stop_token_ids_of_another_kind(model, value):
    text = refused(lambda: model.generate([[2, 5]], max_length=8, stop_token_ids=value), kind=InputError)
    assert text.startswith('`stop_token_ids` must be "auto", a list of ids, or None') and repr(value) in text


@pytest.mark.parametrize("value", [(1, 5), np.array([1, 5]), [np.int32(1), 5], []])
def test_stop_token_ids_of_every_right_kind(model, value):
    kept = model.generate([[2, 5]], max_length=8, seed=1, stop_token_ids=[int(i) for i in value])["token_ids"]
    again = model.generate([[2, 5]], max_length=8, seed=1, stop_token_ids=value)["token_ids"]
    np.testing.assert_array_equal(kept, again)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([[2.0, 5.5]], "Prompt 0 must be a list of integers"),
        ([[2], [3.0]], "Prompt 1 must be a list of integers"),
        ([["2"]], "Prompt 0 must be a list of integers"),
        ([[2, None]], "Prompt 0 must be a list of integers"),
        (np.array([[2.0, 5.0]]), "Prompt 0 must be a list of integers"),
        ({"token_ids": np.array([[2.5]])}, "`token_ids` must be integers of shape (b, t)"),
        ({"token_ids": [[2], [2, 3]]}, "`token_ids` must be integers of shape (b, t)"),
        ({"token_ids": np.array([2, 3])}, "`token_ids` must be integers of shape (b, t)"),
        (
            {"token_ids": np.array([[2, 3]]), "padding_mask": np.array([[True]])},
            "`padding_mask` must have the shape of `token_ids`, (1, 2). Received: padding_mask of (1, 1)",
        ),
        (
            {"token_ids": np.array([[2, 3], [2, 3]]), "padding_mask": np.array([[True, True]])},
            "`padding_mask` must have the shape of `token_ids`, (2, 2). Received: padding_mask of (1, 2)",
        ),
        (5, "`inputs` must be text, conversations, or a list of lists of ids"),
        ("one \ud83d", "half of a surrogate pair"),
        ([{"role": "user", "content": "\ud83d"}], "half of a surrogate pair"),
    ],
)
def test_prompts_of_another_kind(model, inputs, message):
    assert message in refused(lambda: model.generate(inputs, max_length=8), kind=InputError)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (2,), (2, 3, 1)])
def test_a_mask_of_another_shape_in_a_call(model, shape):
    """Backends repeat a mask of one row for all rows."""
    inputs = {"token_ids": np.array([[2, 3, 4], [2, 3, 5]]), "padding_mask": np.ones(shape, bool)}
    with pytest.raises(ValueError, match=r"`padding_mask` must have the shape of `token_ids`, \(2, 3\)"):
        model(inputs)
