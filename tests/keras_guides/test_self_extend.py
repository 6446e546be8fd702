"""Self_extend: attention to far tokens by groups, put into the blocks of a model that was trained without it.

The notebook replaces two private methods of KerasHub's attention. Ours has others, so its attention is written anew: a
`call` with the arguments of `GemmaAttention`, set on every block before the model generates.

Source: Jin et al. 2024, arXiv:2401.01325, section 3.
"""

from types import MethodType

import guide_values
import numpy as np
import numpy_gemma
import pytest
from keras import ops

from gemma_keras import backends
from gemma_keras.layers.rotary import rotary_tables
from gemma_keras.models import GemmaCausalLM
from gemma_keras.samplers import GreedySampler

GROUP_SIZE, WINDOW_SIZE = 4, 8


def extended_call(self, x, rotary, visible, cache=None, cache_index=None, dropout_keys=None):
    """Near keys by their positions, keys from WINDOW_SIZE on by the numbers of their groups; no padding."""
    config = self.config
    batch, time, size = ops.shape(x)[0], ops.shape(x)[1], config.head_dim
    queries = ops.reshape(self.q_proj(x), (batch, time, config.num_query_heads, size)) * config.query_scale
    keys = ops.reshape(self.k_proj(x), (batch, time, config.num_key_value_heads, size))
    values = ops.reshape(self.v_proj(x), (batch, time, config.num_key_value_heads, size))
    first = 0
    if cache is not None:
        first = cache_index
        cache = (
            backends.update_cache(cache[0], keys, cache_index),
            backends.update_cache(cache[1], values, cache_index),
        )
        keys, values = cache
    at_queries = (ops.arange(time, dtype="int32") + first)[None]
    at_keys = ops.arange(ops.shape(keys)[1], dtype="int32")[None]

    def products(at_queries, at_keys):
        turned = backends.rotate(queries, *rotary_tables(at_queries, size, config.rope_theta))
        others = backends.rotate(keys, *rotary_tables(at_keys, size, config.rope_theta))
        return ops.einsum("btnh,bsh->bnts", turned, others[:, :, 0])

    shift = WINDOW_SIZE - WINDOW_SIZE // GROUP_SIZE
    near = products(at_queries, at_keys)
    far = products(at_queries // GROUP_SIZE + shift, at_keys // GROUP_SIZE)
    scores = ops.where(at_queries[:, :, None] - at_keys[:, None, :] < WINDOW_SIZE, near, far)
    chances = ops.softmax(ops.where(visible[:, None], scores, -1e9))
    mixed = ops.einsum("bnts,bsh->btnh", chances, values[:, :, 0])
    return self.o_proj(ops.reshape(mixed, (batch, time, config.num_query_heads * size))), cache


def extended_attention(x, weight, config, is_local):
    """The same for the numpy model, a query and a key at a time."""
    h, shift = config.head_dim, WINDOW_SIZE - WINDOW_SIZE // GROUP_SIZE
    mixed = np.zeros((len(x), config.num_query_heads * h))
    values = x @ weight["v_proj"]
    for n in range(config.num_query_heads):
        for t in range(len(x)):
            scores = []
            for s in range(t + 1):
                places = (t, s) if t - s < WINDOW_SIZE else (t // GROUP_SIZE + shift, s // GROUP_SIZE)
                query = numpy_gemma.rotate(x[t] @ weight["q_proj"][:, n * h : (n + 1) * h], places[0], 1e4, 1.0)
                key = numpy_gemma.rotate(x[s] @ weight["k_proj"], places[1], 1e4, 1.0)
                scores.append(query @ key * config.query_scale)
            chances = np.exp(np.array(scores) - max(scores))
            mixed[t, n * h : (n + 1) * h] = chances / chances.sum() @ values[: t + 1]
    return mixed @ weight["o_proj"]


@pytest.fixture(scope="module")
def gemma_lm(presets):
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    for layer in model.backbone.transformer_layers:
        layer.attention.call = MethodType(extended_call, layer.attention)
    model.compile(sampler=GreedySampler())
    return model


def test_self_extend(gemma_lm):
    text = "0. Car: Ask for a discount with this number 1234123. What is the discount code?"
    tokenized = gemma_lm.preprocessor.tokenizer.tokenize(text)
    ids = [2, *tokenized][:32]  # as wide as prompts are padded to: no padding
    assert len(ids) == 32
    expected = guide_values.logits(gemma_lm, ids, attend=extended_attention)
    found = backends.to_host(gemma_lm.score(token_ids=np.array([ids])))[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Up to the window the model is as it was, beyond it is another one.
    plain = guide_values.logits(gemma_lm, ids)
    np.testing.assert_allclose(found[:WINDOW_SIZE], plain[:WINDOW_SIZE], atol=1e-4)
    assert np.abs(found[WINDOW_SIZE + 4 :] - plain[WINDOW_SIZE + 4 :]).max() > 1e-2
    said = guide_values.response_ids(gemma_lm, ids, max_length=40, stop_token_ids=None)
    assert len(said) == 8
    assert guide_values.shortfall(gemma_lm, ids, said, attend=extended_attention).max() < 1e-4


def test_blocks_that_are_replaced_after_an_answer_take_part_after_compile(presets):
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    ids = np.random.default_rng(2).integers(5, 360, 32).tolist()
    options = {"max_length": 40, "stop_token_ids": None, "sampler": "greedy"}
    guide_values.response_ids(model, ids, **options)
    for layer in model.backbone.transformer_layers:
        layer.attention.call = MethodType(extended_call, layer.attention)
    model.compile()
    said = guide_values.response_ids(model, ids, **options)
    assert guide_values.shortfall(model, ids, said, attend=extended_attention).max() < 1e-4
