"""Multi-query, grouped and multi-head attention."""

import keras
from keras import ops

from gemma_keras import backends
from gemma_keras.config import GemmaConfig
from gemma_keras.initializers import FirstWeights
from gemma_keras.layers.direct_call import direct_call, project
from gemma_keras.layers.masks import RowTokens
from gemma_keras.layers.projection import Projection
from gemma_keras.layers.rms_norm import RMSNorm


class GemmaAttention(keras.layers.Layer):
    """Causal self-attention of one block; k query heads share a key-value head when there are fewer of those.

    Args:
        config: sizes and switches.
        index: the layer's number, for names.
        weights: the initial ones.

    Call: x float (b, t, d), rotary (cos, sin), visible bool (b, t, s) or `RowTokens`, and in decoding `cache` (keys,
    values), each (b, s, k, h), with the slot `cache_index` to write at; `dropout_keys` as `Projection`. Returns (float
    (b, t, d), cache or None).

    Source: arXiv:2403.08295, section 2; soft caps arXiv:2408.00118, section 2; query and key norms arXiv:2503.19786,
    section 2.
    """

    def __init__(self, config: GemmaConfig, index: int, weights: FirstWeights, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        width, head = config.hidden_dim, config.head_dim
        query_width, key_width = config.num_query_heads * head, config.num_key_value_heads * head
        stem = f"layers.{index}"
        self.q_proj = Projection(width, query_width, f"{stem}.q_proj", weights, self.dtype_policy)
        self.k_proj = Projection(width, key_width, f"{stem}.k_proj", weights, self.dtype_policy)
        self.v_proj = Projection(width, key_width, f"{stem}.v_proj", weights, self.dtype_policy)
        self.o_proj = Projection(query_width, width, f"{stem}.o_proj", weights, self.dtype_policy)
        self.query_norm = self.key_norm = None
        if config.use_query_key_norm:
            first = [weights.initializer(f"{stem}.{name}", 0.0) for name in ("query_norm", "key_norm")]
            self.query_norm = RMSNorm(head, config.norm_epsilon, first[0], dtype=self.dtype_policy, name="query_norm")
            self.key_norm = RMSNorm(head, config.norm_epsilon, first[1], dtype=self.dtype_policy, name="key_norm")
        self.built = True

    def call(self, x, rotary, visible, cache=None, cache_index=None, dropout_keys=None):
        config = self.config
        batch, time = ops.shape(x)[0], ops.shape(x)[1]
        query_shape = (batch, time, config.num_query_heads, config.head_dim)
        key_shape = (batch, time, config.num_key_value_heads, config.head_dim)
        queries = backends.reshape(project(self.q_proj, x, dropout_keys), query_shape)
        keys = backends.reshape(project(self.k_proj, x, dropout_keys), key_shape)
        values = backends.reshape(project(self.v_proj, x, dropout_keys), key_shape)
        if self.query_norm is not None:
            queries, keys = direct_call(self.query_norm, queries), direct_call(self.key_norm, keys)
        queries = backends.rotate(queries, *rotary) * config.query_scale
        keys = backends.rotate(keys, *rotary)
        if cache is not None:
            cache = (
                backends.update_cache(cache[0], keys, cache_index),
                backends.update_cache(cache[1], values, cache_index),
            )
            keys, values = cache
        attend = backends.causal_attention if isinstance(visible, RowTokens) else backends.attention
        mixed = attend(queries, keys, values, visible, config.attention_logit_soft_cap)
        mixed = backends.reshape(mixed, (batch, time, config.num_query_heads * config.head_dim))
        return project(self.o_proj, mixed, dropout_keys), cache
