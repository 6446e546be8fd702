"""Published sizes and their names."""

import pytest

from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig, size_name

pytestmark = pytest.mark.no_backend

# Recomputed from the published shapes; the Gemma paper's own non-embedding counts are 1,981,884,416 and 7,751,248,896.
COUNTS = {
    "gemma_2b": 2_506_172_416, "gemma_7b": 8_537_680_896, "gemma2_2b": 2_614_341_888, "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320, "gemma3_270m": 268_098_176, "gemma3_1b": 999_885_952, "gemma3_4b": 3_880_099_328,
    "gemma3_12b": 11_765_788_416, "gemma3_27b": 27_009_002_240,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_parameter_counts(name):
    assert GemmaConfig.from_name(name).parameter_count == COUNTS[name]


def test_the_papers_non_embedding_counts():
    for name, count in (("gemma_2b", 1_981_884_416), ("gemma_7b", 7_751_248_896)):
        config = GemmaConfig.from_name(name)
        assert config.parameter_count - config.vocabulary_size * config.hidden_dim == count


@pytest.mark.parametrize(
    "alias, name",
    [
        ("gemma_2b_en", "gemma_2b"),
        ("gemma_instruct_7b_en", "gemma_7b"),
        ("gemma2_9b_en", "gemma2_9b"),
        ("gemma_1.1_instruct_2b_en", "gemma_2b"),
        ("code_gemma_2b_en", "gemma_2b"),
        ("gemma3_4b_text", "gemma3_4b"),
        ("gemma3_instruct_270m", "gemma3_270m"),
    ],
)
def test_keras_hub_names(alias, name):
    assert size_name(alias) == name


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean 'gemma3_270m'"):
        GemmaConfig.from_name("gemma3_270n")


def test_window_pattern_and_scales():
    gemma2, gemma3 = GemmaConfig.from_name("gemma2_27b"), GemmaConfig.from_name("gemma3_27b")
    assert gemma2.local_layers[:4] == (True, False, True, False) and gemma2.query_scale == 144**-0.5
    assert gemma3.local_layers[:7] == (True,) * 5 + (False, True) and gemma3.query_scale == 168**-0.5


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"num_key_value_heads": 3}, "must divide"),
        ({"head_dim": 7}, "even"),
        ({"num_layers": 0}, "positive"),
        ({"local_layers": (True,)}, "one entry a layer"),
        ({"family": "gemma9"}, "must be one of"),
        ({"local_layers": (True,) * 18}, "sliding_window"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        GemmaConfig(**changes)


def test_round_trip_through_plain_values():
    config = GemmaConfig.from_name("gemma3_1b")
    assert GemmaConfig(**config.to_dict()) == config
