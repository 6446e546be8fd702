"""What goes wrong in KerasHub's Gemma (seen in 0.32), each with a test that would catch it here.

`ELSEWHERE` names the tests that stand beside their subject; those that had no place yet are below.
"""

import re

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaTokenizer, backends

ELSEWHERE = {
    "its Hugging Face export drops LoRA": (
        "parity/test_peft.py",
        "test_peft_opens_our_adapter_and_transformers_our_merged_folder",
    ),
    "its export writes key-value head 0 only": (
        "parity/test_transformers_parity.py",
        "test_saved_tensors_equal_the_source_byte_for_byte",
    ),
    "its export writes Gemma 2 as Gemma 1": (
        "model/checkpoints/test_config.py",
        "test_transformers_opens_what_is_written_and_we_read_what_it_writes",
    ),
    "Gemma 2 27B has another attention scale": ("parity/test_keras_hub.py", "test_logits_and_weights_go_both_ways"),
    "published scales": ("model/test_config.py", "test_window_pattern_and_scales"),
    "LoRA of a shape that nobody reads, on queries and values only": (
        "parity/test_peft.py",
        "test_we_open_pefts_adapter",
    ),
    "LoRA cannot be merged": ("model/test_lora.py", "test_merged_equals_adapted_and_unmerged_is_bit_equal"),
    "LoRA cannot be switched off": ("model/test_lora.py", "test_off_is_the_base_model_in_scoring_and_in_generation"),
    "prompt tokens are in the loss": (
        "model/test_causal_lm_fit.py",
        "test_pairs_of_every_kind_give_the_loss_of_the_response_alone",
    ),
    "text yields control tokens": ("model/text/test_tokenizer.py", "test_each_control_piece_as_text"),
    "a turn yields control tokens": ("model/text/test_chat.py", "test_control_pieces_in_a_turn_stay_text"),
    "a finished row goes on": ("model/test_generation.py", "test_rows_stop_at_their_own_stop_token"),
}


@pytest.mark.no_backend
@pytest.mark.parametrize("defect", list(ELSEWHERE))
def test_the_tests_named_above_exist(defect, repository):
    file, name = ELSEWHERE[defect]
    assert re.search(rf"^def {name}\(", (repository / "tests" / file).read_text(), re.MULTILINE)


@pytest.mark.once
def test_no_forward_pass_merges_the_adapter_into_a_kernel(tiny_configs, monkeypatch):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=3))
    model.enable_lora(rank=5)
    products, linear = [], backends.linear
    monkeypatch.setattr(
        backends,
        "linear",
        lambda x, kernel: products.append((tuple(x.shape), tuple(kernel.shape))) or linear(x, kernel),
    )
    model({"token_ids": np.array([[2, 5, 6, 7]], np.int32)})
    projections = model.backbone.projections().values()
    assert len(products) == 3 * len(projections)  # x @ kernel, x @ a, (x @ a) @ b
    assert all(x[:2] == (1, 4) for x, _ in products)
    assert (
        sum(kernel[0] == 5 for _, kernel in products)
        == sum(kernel[1] == 5 for _, kernel in products)
        == len(projections)
    )


@pytest.fixture
def seen(monkeypatch):
    """Shapes of the ids in every call of a backbone; where code is compiled a shape is seen when it is traced."""
    shapes, call = [], GemmaBackbone.call

    def recorded(backbone, inputs, cache=None, cache_index=None, training=None):
        shapes.append(tuple(inputs["token_ids"].shape))
        return call(backbone, inputs, cache, cache_index, training)

    monkeypatch.setattr(GemmaBackbone, "call", recorded)
    return shapes


@pytest.mark.once
def test_ragged_prompts_are_read_at_once_and_then_a_token_a_step(tiny_configs, seen):
    """Whatever `max_length` is, and however unequal the prompts are."""
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=3))
    model.generate([[2, 5], [2, 5, 6, 7, 8, 9, 10]], max_length=55, stop_token_ids=None)
    assert seen[0] == (2, 16)  # the longest prompt, filled up to a multiple of 16
    assert set(seen) == {(2, 16), (2, 1)}
    if backends.IS_EAGER:
        assert (
            len(seen) == 56
        )  # the room of the shorter prompt, 53 tokens, in steps of 8; the prompts' own pass included


@pytest.mark.once
@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_a_turn_ends_at_end_of_turn_and_the_batch_with_its_last_row(tiny_configs, family, seen):
    """All weights but the embedding are zero, so that the longest row of one direction is chosen at once."""
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, family)
    config = tiny_configs[family].replace(vocabulary_size=300)
    model = GemmaCausalLM(GemmaBackbone(config, seed=None), tokenizer)
    rows = np.where(np.arange(300) == tokenizer.end_of_turn_id, 2.0, 1.0)
    model.backbone.named_variables()["embedding"].assign(np.repeat(rows[:, None], config.hidden_dim, axis=1))
    talks = [[{"role": "user", "content": "red"}], [{"role": "user", "content": "blue dog"}]]
    assert model.generate(talks, max_length=200, sampler="greedy") == ["", ""]
    if backends.IS_EAGER:
        assert len(seen) == 1  # no step is taken for rows that have ended


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="elsewhere the compiler decides where an update is written"
)
def test_a_cache_is_written_in_place():
    cache = keras.ops.zeros((2, 9, 1, 4))
    updated = backends.update_cache(cache, keras.ops.ones((2, 1, 1, 4)), 3)
    assert updated.data_ptr() == cache.data_ptr() and float(cache.sum()) == 8
