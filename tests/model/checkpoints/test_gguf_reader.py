"""GGUF in: small files written by the gguf package in several types, and the real Gemma 3 270M against stored values of
that package."""

import hashlib
import json
import pathlib
import time

import ml_dtypes
import numpy as np
import pytest

from gemma_keras.checkpoints import gguf_header, names
from gemma_keras.checkpoints import gguf_reader as checkpoints_gguf
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig, every_nth_global

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.no_backend

# Rows of 32 and 64, so that block types fit.
_SIZES = {
    "vocabulary_size": 40, "num_layers": 3, "num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "hidden_dim": 32, "intermediate_dim": 64,
}  # fmt: skip
CONFIGS = {
    "gemma": GemmaConfig(**_SIZES),
    "gemma2": GemmaConfig(
        **_SIZES, family="gemma2", use_post_norms=True, attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0,
        sliding_window=16, local_layers=every_nth_global(3, 2),
    ),
    "gemma3": GemmaConfig(
        **_SIZES, family="gemma3", use_post_norms=True, use_query_key_norm=True, sliding_window=16,
        local_layers=every_nth_global(3, 6), rope_theta=1e6, local_rope_theta=1e4, rope_scale=8.0,
    ),
}  # fmt: skip


def write_gguf(file, config, weights, kind, extra=None, leave_out=(), padding=0, vocabulary=True):
    """A GGUF file as llama.cpp's converter writes it: norms plus one, projections (out, in)."""
    writer = gguf.GGUFWriter(str(file), config.family)
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.hidden_dim)
    writer.add_feed_forward_length(config.intermediate_dim)
    writer.add_head_count(config.num_query_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_context_length(config.context_length)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    if config.family != "gemma":
        writer.add_sliding_window(config.sliding_window)
    if config.family == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if config.rope_scale != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scale)
    if vocabulary:
        writer.add_token_list([f"piece{i}" for i in range(config.vocabulary_size)])
    for key, value in (extra or {}).items():
        writer.add_uint32(key, value) if isinstance(value, int) else writer.add_string(key, value)
    for name, values in weights.items():
        if name in leave_out:
            continue
        stored = values + np.float32(1) if names.is_norm(name) else values
        stored = np.ascontiguousarray(stored.T if names.is_transposed(name) else stored)
        if name == "embedding" and padding:
            stored = np.concatenate([stored, np.full((padding, config.hidden_dim), 9, np.float32)])
        own = gguf.GGMLQuantizationType.F32 if names.is_norm(name) else kind
        writer.add_tensor(names.gguf_name(name, config), gguf.quantize(stored, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_weights(config) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    shapes = names.expected_shapes(config)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("family", CONFIGS)
def test_configuration_and_float32_weights(family, tmp_path):
    config, file = CONFIGS[family], tmp_path / "model.gguf"
    weights = random_weights(config)
    write_gguf(file, config, weights, gguf.GGMLQuantizationType.F32)
    assert checkpoints_gguf.read_config(file) == config
    read = dict(checkpoints_gguf.read_weights(file))
    assert set(read) == set(weights)
    for name, values in weights.items():
        tolerance = 2e-7 if names.is_norm(name) else 0
        np.testing.assert_allclose(read[name], values, rtol=0, atol=tolerance, err_msg=name)


# All that gguf 0.19 has a formula for; what it only stores is refused.
DEQUANTIZED = (
    "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S "
    "IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4"
).split()
STORED_ONLY = "Q8_1 Q8_K I8 I16 I32 I64 F64".split()


@pytest.fixture
def file_of_a_kind(tmp_path, monkeypatch):
    """Makes a file of one type; its bytes are drawn, as the package cannot write all types that it reads."""

    def write(kind):
        values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        generator = np.random.default_rng(5)

        def drawn(array, kind):
            if kind == gguf.GGMLQuantizationType.F32 and array.ndim == 1:
                return array
            # At most 48: whatever half a block's bytes hold, as float16 or float32 they are small numbers.
            return generator.integers(0, 49, (*array.shape[:-1], array.shape[-1] // values * size), np.uint8)

        monkeypatch.setattr(gguf, "quantize", drawn)
        config = CONFIGS["gemma3"].replace(
            num_layers=1, local_layers=(True,), head_dim=64, hidden_dim=256, intermediate_dim=256
        )
        write_gguf(tmp_path / "model.gguf", config, random_weights(config), gguf.GGMLQuantizationType[kind])
        return tmp_path / "model.gguf", config

    return write


@pytest.mark.parametrize("kind", DEQUANTIZED)
def test_types_against_the_gguf_package(kind, file_of_a_kind):
    file, config = file_of_a_kind(kind)
    read = dict(checkpoints_gguf.read_weights(file))
    for tensor in gguf.GGUFReader(file).tensors:
        name = names.our_name_from_gguf(tensor.name, config)
        expected = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        expected = expected - 1 if names.is_norm(name) else expected
        assert np.isfinite(expected).all() and expected.max() > expected.min()
        np.testing.assert_array_equal(read[name], expected.T if names.is_transposed(name) else expected, err_msg=name)


@pytest.mark.parametrize("kind", STORED_ONLY)
def test_types_without_a_formula_are_refused_before_a_weight_is_read(kind, file_of_a_kind):
    file, _ = file_of_a_kind(kind)
    with pytest.raises(CheckpointError, match=f"has the type {kind}, which the gguf package cannot dequantize"):
        checkpoints_gguf.read_weights(file)


def test_norms_of_a_bfloat16_model_are_exact(tmp_path):
    config, file = CONFIGS["gemma2"], tmp_path / "model.gguf"
    weights = {
        name: values.astype(ml_dtypes.bfloat16).astype(np.float32) for name, values in random_weights(config).items()
    }
    weights["final_norm"][:] = 0.00390625  # 1 + this is lost when rounded to bfloat16 before the 1 is taken off
    write_gguf(file, config, weights, gguf.GGMLQuantizationType.BF16)
    for name, values in checkpoints_gguf.read_weights(file, dtype="bfloat16"):
        assert values.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(values.astype(np.float32), weights[name], err_msg=name)


def test_rows_beyond_the_vocabulary_are_dropped(tmp_path):
    config, file = CONFIGS["gemma"], tmp_path / "model.gguf"
    weights = random_weights(config)
    write_gguf(file, config, weights, gguf.GGMLQuantizationType.Q8_0, padding=24)
    assert checkpoints_gguf.read_config(file).vocabulary_size == 40
    assert dict(checkpoints_gguf.read_weights(file))["embedding"].shape == (40, 32)


@pytest.mark.parametrize(("family", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_27b_models_attention_scale_is_the_width_a_head(family, layers, tmp_path):
    """GGUF holds no scale; the published one is (width / heads) ** -0.5 there: 144 and 168 for the real sizes."""
    config, file = CONFIGS[family].replace(num_layers=layers, local_layers=()), tmp_path / "model.gguf"
    write_gguf(file, config, {"embedding": np.zeros((40, 32), np.float32)}, gguf.GGMLQuantizationType.F32)
    read = checkpoints_gguf.read_config(file)
    assert read.query_scale == (32 / 4) ** -0.5
    assert read.local_layers == every_nth_global(layers, 2 if family == "gemma2" else 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"leave_out": ("layers.1.gate_proj",)}, "1 tensors are missing, the first is 'blk.1.ffn_gate.weight'"),
        ({"leave_out": ("embedding",)}, "tensor 'token_embd.weight' of two dimensions is missing"),
        ({"extra": {"split.count": 4}}, "one part of a split model"),
        ({"extra": {"gemma3.attention.sliding_window_pattern": 0}}, "must be an integer >= 1"),
        ({"extra": {"gemma3.rope.freq_base_swa": "much"}}, "`gemma3.rope.freq_base_swa` must be a number > 0"),
    ],
)
def test_a_file_that_is_no_whole_gemma_is_refused(arguments, message, tmp_path):
    config, file = CONFIGS["gemma3"], tmp_path / "model.gguf"
    write_gguf(file, config, random_weights(config), gguf.GGMLQuantizationType.F32, **arguments)
    with pytest.raises(CheckpointError) as error:
        checkpoints_gguf.read_weights(file)
    assert message in str(error.value) and str(file) in str(error.value)


def test_another_architecture_is_refused(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        CheckpointError, match="`general.architecture` must be one of gemma, gemma2, gemma3. Received: 'llama'"
    ):
        checkpoints_gguf.read_config(tmp_path / "x.gguf")
    assert checkpoints_gguf.read_tokenizer(tmp_path / "x.gguf") is None


def test_the_real_file(real_gguf):
    start = time.process_time()
    config = checkpoints_gguf.read_config(real_gguf)
    seconds = time.process_time() - start
    assert config == PUBLISHED_SIZES["gemma3_270m"]
    assert seconds < 3, f"parsing the header took {seconds:.1f} s"
    stored = json.loads((pathlib.Path(__file__).parent / "data" / "gemma3_270m_gguf_digests.json").read_text())
    metadata = checkpoints_gguf.read_tokenizer(real_gguf)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert {"count": len(tokens), "sha256": hashlib.sha256("\0".join(tokens).encode()).hexdigest()} == stored["tokens"]
    assert metadata["tokenizer.ggml.scores"].shape == metadata["tokenizer.ggml.token_type"].shape == (262_144,)
    checked, parameters = 0, 0
    for name, values in checkpoints_gguf.read_weights(real_gguf):
        parameters += values.size
        expected = stored["tensors"].get(names.gguf_name(name, config))
        if expected is None:
            continue
        checked += 1
        in_file = values.T if names.is_transposed(name) else values
        assert list(in_file.shape) == expected["shape"]
        if names.is_norm(name):
            np.testing.assert_allclose(in_file[:3] + 1, expected["first"], rtol=2e-7)
        else:
            assert hashlib.sha256(np.ascontiguousarray(in_file, "<f4").tobytes()).hexdigest() == expected["sha256"], (
                name
            )
    assert checked == len(stored["tensors"]) == 9
    assert parameters == config.parameter_count == 268_098_176


def test_the_header_alone_knows_every_tensor(real_gguf):
    header = gguf_header.read_header(real_gguf)
    assert len(header.tensors) == 236
    assert header.tensors["blk.0.attn_output.weight"].shape == (640, 1024)
    assert header.tensors["blk.0.attn_output.weight"].start == 184_901_824
    assert header.metadata["gemma3.attention.layer_norm_rms_epsilon"] == 1e-6
