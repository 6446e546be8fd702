"""Attention on JAX."""

import jax
import jax.numpy as jnp

from gemma_keras.backends.reference import HIDDEN_SCORE


def attention(queries, keys, values, visible, soft_cap=None):
    """As `reference.attention`; products accumulate in float32, which bfloat16 on a CPU needs to be fast."""
    batch, time, heads, head_dim = queries.shape
    shared, slots = keys.shape[2], keys.shape[1]
    group = heads // shared
    rows = (
        queries.reshape(batch, time, shared, group, head_dim)
        .transpose(0, 2, 3, 1, 4)
        .reshape(batch, shared, group * time, head_dim)
    )
    scores = jnp.einsum("bkqh,bskh->bkqs", rows, keys, preferred_element_type=jnp.float32)
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    scores = jnp.where(visible[:, None, None], scores.reshape(batch, shared, group, time, slots), HIDDEN_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(queries.dtype).reshape(batch, shared, group * time, slots)
    mixed = jnp.einsum("bkqs,bskh->bkqh", weights, values).reshape(batch, shared, group, time, head_dim)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, time, heads, head_dim)
