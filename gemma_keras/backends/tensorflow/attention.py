"""Attention on TensorFlow."""

import tensorflow as tf

from gemma_keras.backends.blocks import Blocks, Native, block_size, cut, cut_heads, joined_heads
from gemma_keras.backends.reference import attention

__all__ = ["attention", "causal_attention", "is_plain"]


def causal_attention(queries, keys, values, tokens, soft_cap=None):
    """As `reference.causal_attention`, a block of scores at a time; batch and time may be unknown."""
    heads, shared = queries.shape[2], keys.shape[2]
    size = block_size(queries.shape[1], is_cpu=not tf.config.list_physical_devices("GPU"))
    # Segment 0 is the filling's.
    places = (cut(tokens.positions, size), cut(tokens.segments + 1, size))
    blocks = Blocks(_NATIVE, size, tokens.window, soft_cap, *places)

    @tf.custom_gradient
    def in_blocks(queries, keys, values):
        mixed, log_mass = blocks.forward(queries, keys, values)
        return mixed, lambda gradient: blocks.backward(queries, keys, values, mixed, log_mass, gradient)

    mixed = in_blocks(*(cut_heads(x, shared, size) for x in (queries, keys, values)))
    return joined_heads(mixed, tf.shape(queries)[1], heads, size)


def is_plain(segments):
    """Unknown: there is no kernel that would want to know."""
    del segments


def _product(a, b, transpose_a=False, transpose_b=False):
    return tf.cast(tf.matmul(a, b, transpose_a, transpose_b), tf.float32)


def _loop(steps, body, carry, dtypes):
    def step(i, carry, arrays):
        carry, outputs = body(i, carry)
        return i + 1, carry, tuple(array.write(i, each) for array, each in zip(arrays, outputs, strict=True))

    start = (0, carry, tuple(tf.TensorArray(dtype, steps) for dtype in dtypes))
    _, carry, arrays = tf.while_loop(lambda i, *_: i < steps, step, start, parallel_iterations=1)
    return carry, tuple(array.stack() for array in arrays)


def _add_at(x, index, part):
    return tf.tensor_scatter_nd_add(x, [[index]], part[None])


_NATIVE = Native(_product, _loop, _add_at)
