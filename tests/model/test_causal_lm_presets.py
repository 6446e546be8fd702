"""Models to disk and back, published sizes by name, and prompts of every kind."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaTokenizer, presets
from gemma_keras import config as config_module
from gemma_keras.backends import to_host
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.initializers import KeyedNormal
from gemma_keras.text import chat

TEXTS = ["red cat", "blue dog", "green moon and sun"]
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def model(tiny_configs):
    tokenizer = GemmaTokenizer.train(TEXTS, 300, "gemma3")
    config = tiny_configs["gemma3"].replace(vocabulary_size=tokenizer.vocabulary_size())
    return GemmaCausalLM(GemmaBackbone(config, seed=6), tokenizer)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    model.save_to_preset(path)
    return path


def weights_of(model):
    return {name: to_host(variable.value) for name, variable in model.backbone.named_variables().items()}


def test_a_saved_model_comes_back_bit_for_bit(model, folder):
    again = GemmaCausalLM.from_preset(folder)
    assert again.config == model.config
    ours, theirs = weights_of(model), weights_of(again)
    assert list(ours) == list(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert (
        again.tokenizer.model_proto == model.tokenizer.model_proto and again.tokenizer.family == model.tokenizer.family
    )


@pytest.mark.once
def test_bfloat16_weights_load_compute_and_come_back(model, folder, tmp_path):
    half = GemmaCausalLM.from_preset(folder, dtype="bfloat16")
    assert {variable.dtype for variable in half.backbone.variables} == {"bfloat16"}
    kernel = "layers.0.q_proj"
    source, rounded = weights_of(model)[kernel], weights_of(half)[kernel].astype(np.float32)
    assert 0 < np.abs(rounded - source).max() <= np.abs(source).max() * 2**-8
    half.compile(sampler="greedy")
    assert half.generate([[2, 5, 6]], max_length=8, stop_token_ids=None)["token_ids"].shape == (1, 8)
    half.save_to_preset(tmp_path, dtype="bfloat16")
    again = weights_of(GemmaCausalLM.from_preset(tmp_path, dtype="bfloat16"))
    np.testing.assert_array_equal(again[kernel].astype(np.float32), rounded)


def test_weights_are_made_once_with_their_final_values(folder, monkeypatch):
    """Random or zero weights that the checkpoint then replaces would be a second copy of the model; sizes are in
    test_load_memory.py."""

    def made(*arguments, **options):
        raise AssertionError("a weight was made before it was read")

    monkeypatch.setattr(KeyedNormal, "__call__", made)
    GemmaCausalLM.from_preset(folder)


@pytest.mark.once
def test_a_failed_save_over_a_model_leaves_that_model(model, folder, tmp_path, tiny_configs):
    shutil.copytree(folder, tmp_path / "saved")
    (tmp_path / "saved/notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    other = GemmaBackbone(
        tiny_configs["gemma3"].replace(vocabulary_size=model.tokenizer.vocabulary_size(), hidden_dim=24), seed=1
    )

    def failing():
        yield from itertools.islice(other.named_arrays(), 4)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        presets.write(tmp_path / "saved", other.config, failing(), model.tokenizer)
    assert {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()} == before
    presets.write(tmp_path / "saved", other.config, other.named_arrays(), model.tokenizer)
    assert GemmaCausalLM.from_preset(tmp_path / "saved").config == other.config
    assert {file.name for file in (tmp_path / "saved").iterdir()} == set(before)


@pytest.mark.once
def test_a_folder_without_a_tokenizer_loads_and_text_is_refused_in_plain_words(model, folder, tmp_path):
    for file in folder.iterdir():
        if file.name not in TOKENIZER_FILES:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    bare = GemmaCausalLM.from_preset(tmp_path)
    assert bare.tokenizer is None
    np.testing.assert_array_equal(weights_of(bare)["embedding"], weights_of(model)["embedding"])
    with pytest.raises(ValueError, match="This model has no tokenizer"):
        bare.generate("red cat")
    with pytest.raises(ValueError, match="This model has no tokenizer"):
        bare.generate([{"role": "user", "content": "red"}])
    with pytest.raises(ValueError, match="Text needs a tokenizer and this model has none"):
        bare.fit(["red cat"])


@pytest.mark.once
def test_a_published_size_by_name_has_random_weights_of_its_seed(monkeypatch, tiny_configs):
    monkeypatch.setitem(config_module.PUBLISHED_SIZES, "gemma_2b", tiny_configs["gemma"])
    one = GemmaCausalLM.from_preset("gemma_2b_en", load_weights=False, seed=1)
    same = GemmaCausalLM.from_preset("gemma_2b", load_weights=False, seed=1)
    other = GemmaCausalLM.from_preset("gemma_2b", load_weights=False, seed=2)
    assert dataclasses.asdict(one.config) == dataclasses.asdict(tiny_configs["gemma"]) and one.tokenizer is None
    np.testing.assert_array_equal(weights_of(one)["embedding"], weights_of(same)["embedding"])
    assert (weights_of(one)["embedding"] != weights_of(other)["embedding"]).any()


@pytest.mark.once
def test_a_folder_that_lacks_weights_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="no weights"):
        GemmaCausalLM.from_preset(tmp_path)
    with pytest.raises(CheckpointError):
        GemmaCausalLM.from_preset(tmp_path / "nowhere")


@pytest.mark.once
def test_prompts_of_every_kind_and_what_comes_back(model):
    options = {"max_length": 24, "stop_token_ids": None, "sampler": "greedy"}
    text = model.generate("red cat", **options)
    assert text.startswith("red cat")
    assert model.generate(["red cat"], **options) == [text]
    assert text == "red cat" + model.generate("red cat", strip_prompt=True, **options)
    ids = [2, *model.tokenizer.encode("red cat")]
    whole = model.generate([ids], **options)
    assert model.tokenizer.decode(whole["token_ids"][whole["padding_mask"]]) == text
    arrays = {"token_ids": np.array([[*ids, 0]]), "padding_mask": np.array([[True] * len(ids) + [False]])}
    np.testing.assert_array_equal(model.generate(arrays, **options)["token_ids"], whole["token_ids"])
    turns = [{"role": "user", "content": "red"}]
    answer = model.generate(turns, **options)
    assert model.generate([turns], **options) == [answer]
    encoded = chat.encode_prompt(model.tokenizer, turns)
    plain = model.generate([encoded], strip_prompt=True, **options)
    assert answer == model.tokenizer.decode(plain["token_ids"][plain["padding_mask"]])


@pytest.mark.once
@pytest.mark.parametrize(
    "inputs, text",
    [
        ([], "`inputs` is empty"),
        ([[]], "Prompt 0 is empty"),
        ([[2, 300]], "Prompt 0 has a token id outside 0 to 299"),
        ([2, 5], "Received: a list of int"),
    ],
)
def test_prompts_that_are_refused(model, inputs, text):
    with pytest.raises(ValueError, match=text):
        model.generate(inputs)
