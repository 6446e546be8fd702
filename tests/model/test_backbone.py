"""Invariants of the model that no oracle is needed for: padding, packing, windows, parameter counts, keyed weights."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.backend.common import global_state

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel
from gemma_keras.backends import to_host
from gemma_keras.checkpoints.names import expected_shapes
from gemma_keras.config import PUBLISHED_SIZES
from gemma_keras.random import generator


def ids_of(config, *shape):
    return generator(1, "ids").integers(4, config.vocabulary_size, shape).astype(np.int32)


def test_weights_are_those_of_the_checkpoint_names(tiny_config):
    backbone = GemmaBackbone(tiny_config)
    shapes = {name: tuple(variable.shape) for name, variable in backbone.named_variables().items()}
    assert shapes == expected_shapes(tiny_config)
    assert sum(int(np.prod(v.shape)) for v in backbone.variables) == tiny_config.parameter_count
    assert len({variable.path for variable in backbone.variables}) == len(backbone.variables)


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_published_sizes_have_their_parameters_without_any_being_allocated(name):
    config = PUBLISHED_SIZES[name]
    try:
        with keras.StatelessScope(initialize_variables=False):
            backbone = GemmaBackbone(config, seed=None)
        assert backbone.count_params() == config.parameter_count  # and that is the published number, see test_config.py
    finally:
        # Keras would allocate them at the end of the next scope.
        global_state.set_global_attribute("uninitialized_variables", [])


def test_initial_weights_are_keyed_by_seed_and_name(tiny_configs):
    one, same, other = (GemmaBackbone(tiny_configs["gemma"], seed=seed).named_variables() for seed in (4, 4, 5))
    kernel = "layers.1.q_proj"
    np.testing.assert_array_equal(to_host(one[kernel].value), to_host(same[kernel].value))
    assert np.abs(to_host(one[kernel].value) - to_host(other[kernel].value)).max() > 0.01
    assert np.abs(to_host(one[kernel].value) - to_host(one["layers.0.q_proj"].value)).max() > 0.01
    # The numbers themselves are part of the promise, whatever the backend: computed here from the documented key.
    expected = generator(4, "weights", kernel).standard_normal((16, 32), dtype=np.float32) * np.float32(16**-0.5)
    np.testing.assert_allclose(to_host(one[kernel].value), expected, rtol=1e-6)


def test_padding_on_either_side_changes_nothing(tiny_config):
    model = GemmaCausalLM(GemmaBackbone(tiny_config))
    ids = ids_of(tiny_config, 1, 9)
    alone = to_host(model({"token_ids": ids}))
    padding = np.zeros((1, 5), np.int32)
    left = {"token_ids": np.concatenate([padding, ids], 1), "padding_mask": np.arange(14)[None] >= 5}
    right = {"token_ids": np.concatenate([ids, padding], 1), "padding_mask": np.arange(14)[None] < 9}
    np.testing.assert_allclose(to_host(model(left))[:, 5:], alone, atol=1e-5)
    np.testing.assert_allclose(to_host(model(right))[:, :9], alone, atol=1e-5)


def test_packed_documents_equal_separate_ones_and_do_not_leak(tiny_config):
    model = GemmaCausalLM(GemmaBackbone(tiny_config))
    first, second = ids_of(tiny_config, 1, 7), ids_of(tiny_config, 1, 9)[:, 2:]
    packed = {
        "token_ids": np.concatenate([first, second], 1),
        "padding_mask": np.ones((1, 14), bool),
        "positions": np.concatenate([np.arange(7), np.arange(7)])[None].astype(np.int32),
        "segment_ids": np.repeat([1, 2], 7)[None].astype(np.int32),
    }
    together = to_host(model(packed))
    np.testing.assert_allclose(together[:, :7], to_host(model({"token_ids": first})), atol=1e-5)
    np.testing.assert_allclose(together[:, 7:], to_host(model({"token_ids": second})), atol=1e-5)
    changed = {**packed, "token_ids": np.concatenate([(first + 1) % 90 + 4, second], 1)}
    np.testing.assert_array_equal(to_host(model(changed))[:, 7:], together[:, 7:])


def test_no_token_sees_its_future(tiny_config):
    model = GemmaCausalLM(GemmaBackbone(tiny_config))
    ids = ids_of(tiny_config, 1, 10)
    changed = ids.copy()
    changed[:, 6:] = (changed[:, 6:] + 3) % 90 + 4
    np.testing.assert_array_equal(
        to_host(model({"token_ids": ids}))[:, :6], to_host(model({"token_ids": changed}))[:, :6]
    )


def test_a_local_layer_sees_its_window_and_no_further():
    config = GemmaConfig(
        vocabulary_size=50,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        hidden_dim=8,
        intermediate_dim=8,
        sliding_window=3,
        local_layers=(True,),
    )
    model = GemmaCausalLM(GemmaBackbone(config))
    ids = ids_of(config, 1, 8)
    base = to_host(model({"token_ids": ids}))[0, 7]
    for position in range(7):
        changed = ids.copy()
        changed[0, position] = (changed[0, position] + 5) % 40 + 4
        difference = np.abs(to_host(model({"token_ids": changed}))[0, 7] - base).max()
        assert (difference > 1e-6) == (position >= 5), position


@pytest.mark.parametrize("padding", ["left", "right"])
def test_reward_reads_the_last_real_token_by_index(tiny_configs, padding):
    config = tiny_configs["gemma3"]
    model = GemmaRewardModel(GemmaBackbone(config))
    ids = ids_of(config, 2, 8)
    alone = to_host(model({"token_ids": ids}))
    fill = np.zeros((2, 4), np.int32)
    real = np.ones((2, 8), bool)
    parts = ([fill, ids], [fill > 0, real]) if padding == "left" else ([ids, fill], [real, fill > 0])
    inputs = {"token_ids": np.concatenate(parts[0], 1), "padding_mask": np.concatenate(parts[1], 1)}
    np.testing.assert_allclose(to_host(model(inputs)), alone, atol=1e-5)
    # A pad id inside the response is a token like any other when the position is given.
    at_three = to_host(model({"token_ids": ids, "reward_positions": np.array([3, 3], np.int32)}))
    np.testing.assert_allclose(at_three, to_host(model({"token_ids": ids[:, :4]})), atol=1e-5)


def test_token_log_probs_are_the_log_softmax_of_the_logits(tiny_config):
    model = GemmaCausalLM(GemmaBackbone(tiny_config))
    ids = ids_of(tiny_config, 2, 7)
    real = np.ones((2, 7), bool)
    real[1, :3] = False
    logits = to_host(model({"token_ids": ids, "padding_mask": real})).astype(np.float64) / 0.5
    reference = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.zeros((2, 7))
    for row in range(2):
        for column in range(1, 7):
            if real[row, column - 1]:
                expected[row, column] = reference[row, column - 1, ids[row, column]]
    np.testing.assert_allclose(to_host(model.token_log_probs(ids, real, temperature=0.5)), expected, atol=1e-5)


def test_score_reads_chosen_positions_only(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma2"]))
    ids = ids_of(tiny_configs["gemma2"], 2, 9)
    positions = np.array([[2, 5], [0, 7]], np.int32)
    targets = np.take_along_axis(ids, positions + 1, 1)
    chosen, entropy = model.score(
        {"token_ids": ids, "target_ids": targets, "target_positions": positions}, with_entropy=True
    )
    everything = to_host(model.token_log_probs(ids))
    np.testing.assert_allclose(to_host(chosen), np.take_along_axis(everything, positions + 1, 1), atol=1e-5)
    logits = to_host(model({"token_ids": ids}))
    probabilities = to_host(ops.softmax(ops.convert_to_tensor(np.take_along_axis(logits, positions[..., None], 1))))
    np.testing.assert_allclose(to_host(entropy), -(probabilities * np.log(probabilities)).sum(-1), atol=1e-5)
