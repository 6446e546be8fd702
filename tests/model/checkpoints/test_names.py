"""Names, shapes and layouts: independent of the table in the code, by the published parameter counts and hand-written
names."""

import math

import pytest

from gemma_keras.checkpoints import names
from gemma_keras.config import PUBLISHED_SIZES

pytestmark = pytest.mark.no_backend

# Copied from the published model cards' configurations, recomputed by hand from the shapes.
PARAMETERS = {
    "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "gemma3_4b": 3_880_099_328,
    "gemma3_12b": 11_765_788_416,
    "gemma3_27b": 27_009_002_240,
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_expected_shapes_add_up_to_the_published_count(size):
    shapes = names.expected_shapes(PUBLISHED_SIZES[size])
    assert sum(math.prod(shape) for shape in shapes.values()) == PARAMETERS[size]


@pytest.mark.parametrize("size", ["gemma_2b", "gemma2_27b", "gemma3_270m"])
def test_names_round_trip(size):
    config = PUBLISHED_SIZES[size]
    shapes = names.expected_shapes(config, with_score=True)
    theirs = {name: names.hugging_face_name(name, config) for name in shapes}
    assert len(set(theirs.values())) == len(shapes)
    assert {names.our_name_from_hugging_face(value, config): value for value in theirs.values()} == theirs
    in_gguf = {name: names.gguf_name(name, config) for name in shapes if name != "score"}
    assert {names.our_name_from_gguf(value, config): value for value in in_gguf.values()} == in_gguf


def test_the_same_hugging_face_name_means_another_norm_in_gemma_1():
    theirs = "model.layers.3.post_attention_layernorm.weight"
    assert names.our_name_from_hugging_face(theirs, PUBLISHED_SIZES["gemma_2b"]) == "layers.3.feed_forward_norm"
    assert names.our_name_from_hugging_face(theirs, PUBLISHED_SIZES["gemma2_2b"]) == "layers.3.post_attention_norm"
    assert names.our_name_from_hugging_face(theirs, PUBLISHED_SIZES["gemma3_1b"]) == "layers.3.post_attention_norm"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("language_model.model.norm.weight", "final_norm"),
        ("model.language_model.layers.17.self_attn.o_proj.weight", "layers.17.o_proj"),
        ("layers.0.mlp.down_proj.weight", "layers.0.down_proj"),
        ("model.layers.0.pre_feedforward_layernorm.weight", "layers.0.feed_forward_norm"),
        ("model.layers.0.self_attn.k_norm.weight", "layers.0.key_norm"),
        ("score.weight", "score"),
        ("model.layers.18.self_attn.o_proj.weight", None),
        ("model.layers.00.self_attn.o_proj.weight", None),
        ("model.layers.0.self_attn.q_proj.bias", None),
        ("vision_tower.encoder.layers.0.self_attn.q_proj.weight", None),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", None),
        ("model.layers.999999999999.mlp.up_proj.weight", None),
    ],
)
def test_hugging_face_names_of_gemma_3(theirs, ours):
    assert names.our_name_from_hugging_face(theirs, PUBLISHED_SIZES["gemma3_270m"]) == ours


def test_projections_are_transposed_and_nothing_else():
    shapes = names.expected_shapes(PUBLISHED_SIZES["gemma3_270m"], with_score=True)
    assert shapes["layers.0.q_proj"] == (640, 1024)
    assert names.file_shape("layers.0.q_proj", shapes["layers.0.q_proj"]) == (1024, 640)
    assert shapes["layers.0.down_proj"] == (2048, 640)
    assert names.file_shape("score", shapes["score"]) == (1, 640)
    assert names.file_shape("embedding", shapes["embedding"]) == (262_144, 640)
    assert not any(names.is_transposed(name) for name in shapes if name.endswith("norm") or name == "embedding")
    assert names.is_norm("layers.0.query_norm") and names.is_norm("final_norm") and not names.is_norm("layers.0.q_proj")


def test_a_weight_that_the_model_lacks_has_no_name():
    with pytest.raises(KeyError):
        names.hugging_face_name("layers.0.query_norm", PUBLISHED_SIZES["gemma_2b"])
    with pytest.raises(KeyError):
        names.gguf_name("score", PUBLISHED_SIZES["gemma_2b"])
