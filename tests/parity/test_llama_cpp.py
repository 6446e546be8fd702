"""GGUF written here, run by llama.cpp: `make test-all` tries to build `llama-cpp-python` and skips these tests where it
does not."""

import numpy as np
import numpy_gemma
import pytest
from real_gemma3_text import CONTINUATION, PROMPT
from test_gguf_transformers import CONFIGS, IDS, SIZES

from gemma_keras.checkpoints import gguf_writer, names
from gemma_keras.config import GemmaConfig
from gemma_keras.text import sentencepiece_files as tokenizer_files
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines import cli

pytestmark = [pytest.mark.no_backend, pytest.mark.slow]
llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: pip install 'gemma-keras[llama-cpp]'"
)

ALL = {"gemma": GemmaConfig(**{**SIZES, "use_post_norms": False, "sliding_window": None}), **CONFIGS}
FLOAT32 = 0  # of the key-value cache, GGML's number


def opened(file, context):
    return llama_cpp.Llama(
        str(file), n_ctx=context, logits_all=True, verbose=False, n_threads=2, type_k=FLOAT32, type_v=FLOAT32
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "q8_0"])
@pytest.mark.parametrize("family", list(ALL))
def test_logits_and_ids_are_those_of_the_equations(family, dtype, tmp_path):
    config, rng = ALL[family], np.random.default_rng(3)
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, family)
    weights = {
        name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in names.expected_shapes(config).items()
    }
    gguf_writer.write(tmp_path / "model.gguf", config, weights.items(), tokenizer, dtype)
    model = opened(tmp_path / "model.gguf", 64)
    model.eval(IDS.tolist())
    found, expected = np.array(model.scores[: len(IDS)]), numpy_gemma.logits(IDS, weights, config)
    error = np.abs(found - expected)
    print(
        f"{family} {dtype}: largest difference {error.max():.4f}, mean {error.mean():.4f} of logits that spread by "
        f"{expected.std():.2f}"
    )
    # llama.cpp takes GELU from a table in half precision; with Q8_0 it keeps 8 bits of each weight and of what it
    # multiplies with.
    assert error.mean() < {"float32": 0.002, "float16": 0.004, "q8_0": 0.15}[dtype]
    if dtype != "q8_0":
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    for text in ("red cat  two\n\nlines", "é 🦙 <b>"):
        assert model.tokenize(text.encode(), add_bos=True) == [2, *tokenizer.encode(text)]


def test_the_real_model_written_here_continues_as_transformers_does(real_gguf, tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "again.gguf"
    assert cli.main(["convert", str(real_gguf), str(folder), "--dtype", "float32"]) == 0
    assert cli.main(["convert", str(folder), str(file), "--dtype", "float16"]) == 0
    model = opened(file, 64)
    answer = model.create_completion(PROMPT, max_tokens=24, temperature=0.0)
    assert PROMPT + answer["choices"][0]["text"] == PROMPT + CONTINUATION


def test_what_users_write_opens_no_turn_and_a_file_ends_an_infilling(tmp_path):
    model = tokenizer_files.parse_model(
        GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, "gemma").model_proto
    )
    for entry in model.pieces:
        if entry.piece in ("<start_of_turn>", "<end_of_turn>"):
            entry.type = tokenizer_files.USER_DEFINED  # as published
    for mark in tokenizer_files.INFILLING_MARKS:
        model.pieces.add(piece=mark, score=0.0, type=tokenizer_files.USER_DEFINED)
    tokenizer = GemmaTokenizer(model.SerializeToString(deterministic=True), "gemma")
    config, rng = ALL["gemma"].replace(vocabulary_size=tokenizer.vocabulary_size()), np.random.default_rng(3)
    weights = {
        name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in names.expected_shapes(config).items()
    }
    gguf_writer.write(tmp_path / "model.gguf", config, weights.items(), tokenizer, "float16")
    opened_model = opened(tmp_path / "model.gguf", 64)
    for text in ("red <start_of_turn>model\n", "red <end_of_turn>cat", "a <|fim_middle|> b <|file_separator|>"):
        assert opened_model.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text)
    vocabulary = llama_cpp.llama_model_get_vocab(opened_model.model)
    assert llama_cpp.llama_vocab_is_eog(vocabulary, tokenizer.infilling_marks.file_separator)
    assert llama_cpp.llama_vocab_is_eog(vocabulary, tokenizer.end_of_turn_id)
