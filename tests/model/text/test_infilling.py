"""CodeGemma's infilling: the marks are ids and never come from text, and the middle ends at any of them."""

import numpy as np
import pytest
import transformers

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
from gemma_keras.text import infilling
from gemma_keras.text import sentencepiece_files as tokenizer_files
from pipelines import cli

pytestmark = pytest.mark.once

PREFIX, SUFFIX = "import ", "\nif __name__ == '__main__':\n    sys.exit(0)"
PROMPT = {"prefix": PREFIX, "suffix": SUFFIX}


@pytest.fixture(scope="module")
def plain():
    return GemmaTokenizer.train(["import sys\n", "def main(): return 0\n", PREFIX + SUFFIX] * 4, 300)


@pytest.fixture(scope="module")
def tokenizer(plain):
    """A small one with CodeGemma's marks, typed user-defined as there."""
    model = tokenizer_files.parse_model(plain.model_proto)
    for mark in ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_separator|>"):
        model.pieces.add(piece=mark, score=0.0, type=tokenizer_files.USER_DEFINED)
    return GemmaTokenizer(model.SerializeToString(deterministic=True))


@pytest.fixture(scope="module")
def model(tokenizer):
    config = GemmaConfig(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8,
        hidden_dim=16, intermediate_dim=32,
    )  # fmt: skip
    return GemmaCausalLM(GemmaBackbone(config, seed=1), tokenizer)


def test_ids_are_those_of_transformers(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    oracle = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    text = f"<bos><|fim_prefix|>{PREFIX}<|fim_suffix|>{SUFFIX}<|fim_middle|>"
    ids = infilling.encode_infilling(tokenizer, PREFIX, SUFFIX)
    assert ids == oracle(text, add_special_tokens=False)["input_ids"]
    assert (ids[1], ids[-1]) == (300, 301) and 302 in ids
    assert infilling.encode_infilling(tokenizer, "", "") == [2, 300, 302, 301]


def test_marks_never_come_from_text(tokenizer):
    marks = set(tokenizer.infilling_marks)
    assert marks == {300, 301, 302, 303} and marks <= tokenizer.control_ids
    text = "a<|fim_middle|><|file_separator|>b"
    assert not marks & set(tokenizer.encode(text)) and tokenizer.decode(tokenizer.encode(text)) == text
    ids = infilling.encode_infilling(tokenizer, text, text)
    assert [i for i in ids if i in marks] == [300, 302, 301]


def test_generate_gives_the_middle(model):
    ids = infilling.encode_infilling(model.tokenizer, PREFIX, SUFFIX)
    by_ids = model.generate(
        [ids], max_length=len(ids) + 8, stop_token_ids=[1, 5, 300, 301, 302, 303], seed=4, strip_prompt=True
    )
    expected = model.tokenizer.decode(by_ids["token_ids"][0][by_ids["padding_mask"][0]])
    assert model.generate(PROMPT, max_length=len(ids) + 8, seed=4) == expected
    assert model.generate([PROMPT, PROMPT], max_length=len(ids) + 8, seed=4)[0] == expected


def test_the_command_line_fills_in_too(model, tmp_path, capsys):
    model.save_to_preset(tmp_path / "model")
    options = ["--prompt", PREFIX, "--suffix", SUFFIX, "--max-new-tokens", "8", "--temperature", "0"]
    assert cli.main(["generate", str(tmp_path / "model"), *options]) == 0
    length = len(infilling.encode_infilling(model.tokenizer, PREFIX, SUFFIX)) + 8
    assert capsys.readouterr().out == model.generate(PROMPT, max_length=length, sampler="greedy") + "\n"


@pytest.mark.parametrize("mark", [*(pytest.param(mark, marks=pytest.mark.slow) for mark in (300, 301, 302)), 303])
def test_every_mark_ends_the_middle(model, mark):
    """All weights but the embedding are zero, so that greedy decoding chooses the longest row of one direction at
    once."""
    only_mark = GemmaCausalLM(GemmaBackbone(model.config, seed=None), model.tokenizer)
    rows = np.where(np.arange(model.config.vocabulary_size) == mark, 2.0, 1.0)
    only_mark.backbone.named_variables()["embedding"].assign(np.repeat(rows[:, None], model.config.hidden_dim, axis=1))
    ids = infilling.encode_infilling(model.tokenizer, PREFIX, SUFFIX)
    unstopped = only_mark.generate(
        [ids], max_length=len(ids) + 3, stop_token_ids=None, sampler="greedy", strip_prompt=True
    )
    assert unstopped["token_ids"].tolist() == [[mark] * 3]
    by_marks = only_mark.generate(PROMPT, max_length=len(ids) + 3, sampler="greedy")
    assert by_marks == "" and mark in infilling.infilling_stop_token_ids(model.tokenizer)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"prefix": "a"}, "'prefix' and 'suffix'. Received: 'prefix'"),
        ({"prefix": "a", "suffix": None}, "`suffix` must be a text. Received: NoneType"),
    ],
)
def test_what_is_no_prompt_is_refused(model, prompt, message):
    with pytest.raises(ValueError, match=message):
        model.generate(prompt, max_length=64)


def test_another_model_s_tokenizer_is_refused(model, plain):
    assert plain.infilling_marks is None
    with pytest.raises(ValueError, match="use a CodeGemma"):
        GemmaCausalLM(model.backbone, plain).generate(PROMPT, max_length=64)
