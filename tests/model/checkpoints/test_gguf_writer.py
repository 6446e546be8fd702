"""GGUF written here, read back by the `gguf` package and by us; what llama.cpp would run as another model is
refused."""

import gguf
import ml_dtypes
import numpy as np
import pytest

from gemma_keras.checkpoints import gguf_reader, gguf_writer, names
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig, every_nth_global
from gemma_keras.text import sentencepiece_files as tokenizer_files
from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = pytest.mark.no_backend

SIZES = {
    "vocabulary_size": 331, "num_layers": 3, "num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "hidden_dim": 64, "intermediate_dim": 96, "context_length": 128,
}  # fmt: skip
CONFIGS = {
    "gemma": GemmaConfig(**SIZES),
    "gemma2": GemmaConfig(
        **SIZES, family="gemma2", use_post_norms=True, attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0,
        sliding_window=8, local_layers=every_nth_global(3, 2),
    ),
    "gemma3": GemmaConfig(
        **SIZES, family="gemma3", use_post_norms=True, use_query_key_norm=True, sliding_window=8,
        local_layers=every_nth_global(3, 6), rope_theta=1e6, local_rope_theta=1e4, rope_scale=8.0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(["red cat", "blue dog", "two  spaces\n\nand lines"], 300, "gemma3")


def weights_of(config, dtype=np.float32):
    rng = np.random.default_rng(3)
    return {
        name: rng.normal(0, 0.5, shape).astype(dtype).astype(np.float32)
        for name, shape in names.expected_shapes(config).items()
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "q8_0"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_what_is_written_comes_back(family, dtype, tokenizer, tmp_path):
    config = CONFIGS[family]
    exact = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "q8_0": np.float32}[dtype]
    weights = weights_of(config, exact)
    file = tmp_path / "model.gguf"
    # Any order of the arrays gives the file its one order.
    gguf_writer.write(file, config, reversed(weights.items()), tokenizer, dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    # Rows beyond the pieces are padding for a reader.
    read = gguf_reader.read_config(file)
    assert read == config
    ours = dict(gguf_reader.read_weights(file))
    assert set(ours) == set(weights)
    for name, values in weights.items():
        if names.is_norm(name):
            np.testing.assert_allclose(ours[name], values, atol=2e-7, err_msg=name)
        elif dtype == "q8_0":
            # Half a step of each block of 32 values along a file's row.
            rows = values.T if names.is_transposed(name) else values
            step = np.abs(rows.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
            back = ours[name].T if names.is_transposed(name) else ours[name]
            error = np.abs(back - rows).reshape(-1, 32)
            # The scale itself is stored in half precision.
            assert (error <= 0.51 * step + 127 * step * 2**-11).all(), name
        else:
            np.testing.assert_array_equal(ours[name], values, err_msg=name)


@pytest.mark.parametrize("family", list(CONFIGS))
def test_the_gguf_package_reads_the_same(family, tokenizer, tmp_path):
    config = CONFIGS[family]
    weights = weights_of(config, np.float16)
    file = tmp_path / "model.gguf"
    gguf_writer.write(file, config, weights.items(), tokenizer, "float16", name="a name")
    reader = gguf.GGUFReader(file)
    assert reader.get_field("general.name").contents() == "a name"
    assert reader.get_field("general.architecture").contents() == family
    assert reader.get_field(f"{family}.attention.head_count_kv").contents() == 2
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {names.gguf_name(name, config) for name in weights}
    for name, values in weights.items():
        tensor = tensors[names.gguf_name(name, config)]
        back = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(names.file_shape(name, values.shape))
        expected = values + np.float32(1) if names.is_norm(name) else values
        np.testing.assert_array_equal(back, expected.T if names.is_transposed(name) else expected, err_msg=name)


def test_the_tokenizer_comes_back(tokenizer, tmp_path):
    config = CONFIGS["gemma3"]
    file = tmp_path / "model.gguf"
    gguf_writer.write(file, config, weights_of(config).items(), tokenizer)
    again = GemmaTokenizer.from_gguf_metadata(gguf_reader.read_tokenizer(file), family="gemma3")
    for text in ("red cat", "two  spaces\n\n\nand <b>lines</b>", "é 🦙 \t end"):
        assert again.encode(text) == tokenizer.encode(text)
    assert again.stop_token_ids == tokenizer.stop_token_ids


def with_pieces(tokenizer, pieces, kind):
    """The tokenizer with more pieces at its end, and its turn marks typed user-defined, as in Gemma 1's published
    file."""
    model = tokenizer_files.parse_model(tokenizer.model_proto)
    for entry in model.pieces:
        if entry.piece in ("<start_of_turn>", "<end_of_turn>"):
            entry.type = tokenizer_files.USER_DEFINED
    for piece in pieces:
        model.pieces.add(piece=piece, score=0.0, type=kind)
    return GemmaTokenizer(model.SerializeToString(deterministic=True), "gemma")


def test_marks_are_typed_control_whatever_the_source_says(tokenizer, tmp_path):
    """llama.cpp would match user-defined ones in what users write, and print and pass over the end of a file."""
    marks = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"]
    coder = with_pieces(tokenizer, marks, tokenizer_files.USER_DEFINED)
    config = CONFIGS["gemma"]
    gguf_writer.write(tmp_path / "model.gguf", config, weights_of(config).items(), coder)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    tokens, kinds = (reader.get_field(f"tokenizer.ggml.{key}").contents() for key in ("tokens", "token_type"))
    assert [kinds[tokens.index(piece)] for piece in (*marks, "<start_of_turn>", "<end_of_turn>", "<bos>")] == [3] * 7
    for key, mark in zip(("pre", "suf", "mid", "sep"), marks, strict=True):
        assert reader.get_field(f"tokenizer.ggml.fim_{key}_token_id").contents() == tokens.index(mark)


def test_there_are_as_many_pieces_as_rows(tokenizer, tmp_path):
    """Gemma 3's tokenizer.json has a piece for images beyond the rows of the text models, and llama.cpp counts."""
    config = CONFIGS["gemma"].replace(vocabulary_size=300)
    weights = weights_of(config)
    longer = with_pieces(tokenizer, ["<image_soft_token>"], tokenizer_files.CONTROL)
    gguf_writer.write(tmp_path / "model.gguf", config, weights.items(), longer)
    assert len(gguf.GGUFReader(tmp_path / "model.gguf").get_field("tokenizer.ggml.tokens").contents()) == 300
    with pytest.raises(CheckpointError, match="has 301 pieces and the model 300 rows: 'word' would be lost"):
        gguf_writer.write(
            tmp_path / "other.gguf", config, weights.items(), with_pieces(tokenizer, ["word"], tokenizer_files.NORMAL)
        )


def test_a_unigram_tokenizer_is_refused(tokenizer, tmp_path):
    model = tokenizer_files.parse_model(tokenizer.model_proto)
    model.trainer_spec.model_type = tokenizer_files.UNIGRAM_MODEL
    unigram = GemmaTokenizer(model.SerializeToString(deterministic=True), "gemma")
    with pytest.raises(CheckpointError, match="a Unigram model, whose ids llama.cpp changes"):
        gguf_writer.write(tmp_path / "model.gguf", CONFIGS["gemma"], [], unigram)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(PUBLISHED_SIZES))
def test_every_published_size_can_be_written(name):
    gguf_writer.check_writable(PUBLISHED_SIZES[name])


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("gemma2", {"query_scale": 0.1}, "llama.cpp's gemma2 has no such model: query_scale=0.1"),
        ("gemma3", {"local_layers": (True, False, True)}, "local_layers"),
        ("gemma3", {"local_rope_theta": 2e4}, "local_rope_theta"),
        ("gemma", {"final_logit_soft_cap": 30.0}, "final_logit_soft_cap"),
    ],
)
def test_what_llama_cpp_would_run_otherwise_is_refused(family, change, message, tmp_path):
    config = CONFIGS[family].replace(**change)
    with pytest.raises(CheckpointError, match=message):
        gguf_writer.write(tmp_path / "model.gguf", config, [], None)
    assert not list(tmp_path.iterdir())


def test_a_missing_weight_leaves_nothing_behind(tmp_path):
    config = CONFIGS["gemma"]
    weights = weights_of(config)
    del weights["layers.1.k_proj"]
    with pytest.raises(CheckpointError, match="1 weights were never written, the first is 'layers.1.k_proj'"):
        gguf_writer.write(tmp_path / "model.gguf", config, weights.items(), None)
    with pytest.raises(CheckpointError, match="expected shape"):
        gguf_writer.write(tmp_path / "model.gguf", config, [("final_norm", np.zeros(3, np.float32))], None)
    with pytest.raises(CheckpointError, match="dtype='q4_0'"):
        gguf_writer.write(tmp_path / "model.gguf", config, [], None, "q4_0")
    assert not list(tmp_path.iterdir())
