"""Long rows and recomputed blocks in whole models: the same losses and gradients as with whole masks, all kept."""

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaRewardModel, backends
from gemma_keras.lora_options import LoraOptions
from gemma_keras.random import generator

LENGTH = 11


def packed_batch(config):
    ids = generator(2, "ids").integers(4, config.vocabulary_size, (2, LENGTH)).astype(np.int32)
    segments = np.array([[1] * 4 + [2] * 7, [0] * 3 + [1] * 8], np.int32)
    positions = np.array([[*range(4), *range(7)], [0, 0, 0, *range(8)]], np.int32)
    return {
        "token_ids": ids,
        "padding_mask": segments > 0,
        "segment_ids": segments,
        "positions": positions,
        "target_ids": np.roll(ids, -1, axis=1),
        "dropout_keys": np.array([3, 8], np.int32),
    }


def gradients_of(model):
    """A function from a batch to [loss, *gradients]."""

    def loss(arrays):
        log_probs = model.score(arrays, training=True)
        return ops.sum(ops.where(arrays["padding_mask"], log_probs, 0.0)), {}

    run = backends.compile_gradients(loss, model)

    def numbers(batch):
        value, _, gradients = run(batch)
        return [float(value), *map(backends.to_host, gradients)]

    return numbers


def short(config):
    """Two layers, one of them local where the family has such: less to compile."""
    return config.replace(num_layers=2, local_layers=(any(config.local_layers), False))


def assert_equal(found, expected):
    assert len(found) == len(expected) > 1
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5 * max(1.0, float(np.abs(theirs).max())))


@pytest.mark.parametrize(("family", "remat"), [("gemma", "block"), ("gemma2", "none"), ("gemma3", "block")])
def test_long_rows_equal_whole_masks(tiny_configs, monkeypatch, family, remat):
    config = short(tiny_configs[family])
    model, batch = GemmaCausalLM(GemmaBackbone(config, seed=3)), packed_batch(config)
    expected = gradients_of(model)(batch)
    monkeypatch.setattr(backends, "DENSE_TOKENS", LENGTH - 1)
    model.backbone.remat = remat
    assert_equal(gradients_of(model)(batch), expected)


def test_recomputed_blocks_draw_the_same_dropout_and_leave_frozen_weights_alone(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(short(tiny_configs["gemma"]), seed=3))
    model.add_adapter("default", LoraOptions(rank=2, dropout=0.5), seed=1)
    for variable in model.trainable_variables:
        variable.assign(generator(1, variable.path).standard_normal(variable.shape, dtype=np.float32))
    batch = packed_batch(model.config)
    expected = gradients_of(model)(batch)
    model.backbone.remat = "block"
    gradients = gradients_of(model)
    assert_equal(gradients(batch), expected)
    other = gradients({**batch, "dropout_keys": batch["dropout_keys"] + 1})
    assert abs(other[0] - expected[0]) > 1e-3


def test_fit_with_a_smaller_last_batch(tiny_configs, monkeypatch):
    config, losses = short(tiny_configs["gemma3"]), []
    ids = generator(4, "ids").integers(4, config.vocabulary_size, (5, 19)).astype(np.int32)
    rows = {"token_ids": ids, "padding_mask": np.arange(19)[None] < np.array([[19], [4], [19], [11], [17]])}
    for remat, length in (("block", 8), ("none", 64)):
        monkeypatch.setattr(backends, "DENSE_TOKENS", length)
        model = GemmaCausalLM(GemmaBackbone(config, seed=3, remat=remat))
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        losses.append(model.fit(rows, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[1][1] < losses[1][0]


def test_a_reward_model_learns_the_same_with_recomputed_blocks(tiny_configs):
    config, gradients = short(tiny_configs["gemma"]), []
    batch = packed_batch(config)
    for remat in ("none", "block"):
        model = GemmaRewardModel(GemmaBackbone(config, seed=3, remat=remat))

        def loss(arrays, model=model):
            return ops.sum(model({name: arrays[name] for name in ("token_ids", "padding_mask")})), {}

        value, _, found = backends.compile_gradients(loss, model)(batch)
        gradients.append([float(value), *map(backends.to_host, found)])
    assert_equal(gradients[1], gradients[0])


def test_remat_is_kept_in_the_config_and_checked(tiny_configs):
    backbone = GemmaBackbone(tiny_configs["gemma"], remat="block")
    assert GemmaBackbone.from_config(backbone.get_config()).remat == "block"
    older = {name: value for name, value in backbone.get_config().items() if name != "remat"}
    assert GemmaBackbone.from_config(older).remat == "none"
    with pytest.raises(ValueError, match=r"`remat` must be one of \('none', 'block'\)\. Received: remat='full'"):
        backbone.remat = "full"
