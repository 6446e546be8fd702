"""One decoder block."""

import keras

from gemma_keras.config import GemmaConfig
from gemma_keras.initializers import FirstWeights
from gemma_keras.layers.attention import GemmaAttention
from gemma_keras.layers.direct_call import direct_call
from gemma_keras.layers.feed_forward import GemmaFeedForward
from gemma_keras.layers.rms_norm import RMSNorm


class DecoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each normed before and, in Gemma 2 and 3, after, each added to its input.

    Call: as `GemmaAttention`; returns (float (b, t, d), cache or None).
    """

    def __init__(self, config: GemmaConfig, index: int, weights: FirstWeights, **kwargs):
        super().__init__(**kwargs)
        self.is_local = config.local_layers[index]

        def norm(name):
            first = weights.initializer(f"layers.{index}.{name}", 0.0)
            return RMSNorm(config.hidden_dim, config.norm_epsilon, first, dtype=self.dtype_policy, name=name)

        self.attention_norm = norm("attention_norm")
        self.attention = GemmaAttention(config, index, weights, dtype=self.dtype_policy, name="attention")
        self.feed_forward_norm = norm("feed_forward_norm")
        self.feed_forward = GemmaFeedForward(config, index, weights, dtype=self.dtype_policy, name="feed_forward")
        self.post_attention_norm = norm("post_attention_norm") if config.use_post_norms else None
        self.post_feed_forward_norm = norm("post_feed_forward_norm") if config.use_post_norms else None
        self.built = True

    def call(self, x, rotary, visible, cache=None, cache_index=None, dropout_keys=None):
        normed = direct_call(self.attention_norm, x)
        update, cache = direct_call(
            self.attention,
            normed,
            rotary,
            visible=visible,
            cache=cache,
            cache_index=cache_index,
            dropout_keys=dropout_keys,
        )
        if self.post_attention_norm is not None:
            update = direct_call(self.post_attention_norm, update)
        x = x + update
        update = direct_call(self.feed_forward, direct_call(self.feed_forward_norm, x), dropout_keys=dropout_keys)
        if self.post_feed_forward_norm is not None:
            update = direct_call(self.post_feed_forward_norm, update)
        return x + update, cache
