"""Attention on JAX."""

import functools

import jax
import jax.numpy as jnp

from gemma_keras.backends.blocks import Blocks, Native, block_size, cut, cut_heads, joined_heads
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


def causal_attention(queries, keys, values, tokens, soft_cap=None):
    """As `reference.causal_attention`, a block of scores at a time; on a GPU by cuDNN's kernel where that takes these
    arrays, and nothing but order and window hides a key."""
    if soft_cap is None and _cudnn_takes(queries, keys, values, tokens.window):
        kernel = functools.partial(_by_cudnn, window=tokens.window)
        blocks = functools.partial(_by_blocks, tokens=tokens, soft_cap=None)
        return jax.lax.cond(tokens.is_plain, kernel, blocks, queries, keys, values)
    return _by_blocks(queries, keys, values, tokens, soft_cap)


def is_plain(segments):
    """Whether no row has a second segment, or padding before its tokens: bool ()."""
    before, after = segments[:, :-1], segments[:, 1:]
    return jnp.all((after == before) | (after == 0))


def _by_cudnn(queries, keys, values, window):
    around = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(
        queries, keys, values, scale=1.0, is_causal=True, local_window_size=around, implementation="cudnn"
    )


def _cudnn_takes(queries, keys, values, window):
    if jax.default_backend() != "gpu":
        return False
    try:
        # It refuses types, sizes and devices while it is traced.
        jax.eval_shape(functools.partial(_by_cudnn, window=window), queries, keys, values)
    except (RuntimeError, ValueError):
        return False
    return True


def _by_blocks(queries, keys, values, tokens, soft_cap):
    time, heads, shared = queries.shape[1], queries.shape[2], keys.shape[2]
    size = block_size(time, is_cpu=jax.default_backend() == "cpu")
    arrays = (cut_heads(x, shared, size) for x in (queries, keys, values))
    # Segment 0 is the filling's.
    places = (cut(tokens.positions, size), cut(tokens.segments + 1, size))
    return joined_heads(_in_blocks(*arrays, *places, tokens.window, soft_cap), time, heads, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _in_blocks(queries, keys, values, positions, segments, window, soft_cap):
    return _forward(queries, keys, values, positions, segments, window, soft_cap)[0]


def _forward(queries, keys, values, positions, segments, window, soft_cap):
    blocks = Blocks(_NATIVE, positions.shape[2], window, soft_cap, positions, segments)
    mixed, log_mass = blocks.forward(queries, keys, values)
    return mixed, (queries, keys, values, positions, segments, mixed, log_mass)


def _backward(window, soft_cap, kept, gradient):
    queries, keys, values, positions, segments, mixed, log_mass = kept
    blocks = Blocks(_NATIVE, positions.shape[2], window, soft_cap, positions, segments)
    return *blocks.backward(queries, keys, values, mixed, log_mass, gradient), None, None


_in_blocks.defvjp(_forward, _backward)


def _product(a, b, transpose_a=False, transpose_b=False):
    # By `dot_general`, which takes the axes as they lie: a transposed operand of `matmul` is copied first.
    *batch, p, q = range(a.ndim)
    axes = (((p if transpose_a else q,), (q if transpose_b else p,)), (batch, batch))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _loop(steps, body, carry, dtypes):
    del dtypes
    return jax.lax.scan(lambda carry, i: body(i, carry), carry, jnp.arange(steps))


_NATIVE = Native(_product, _loop, lambda x, index, part: x.at[index].add(part))
