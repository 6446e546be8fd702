"""Logits, and log-probabilities without all of them, on TensorFlow."""

import tensorflow as tf

from gemma_keras.backends import reference


@tf.function(jit_compile=True)
def _half_product(rows, matrix):
    # TensorFlow's own kernel for half precision rounds its result to it; XLA's does not, also within a graph that is
    # not compiled, as that of `fit` on a CPU.
    return tf.raw_ops.BatchMatMulV3(x=rows, y=matrix, Tout=tf.float32, adj_y=True)


def _product(rows, matrix):
    """rows (n, d) and matrix (v, d) to float32 (n, v)."""
    return tf.matmul(rows, matrix, transpose_b=True) if rows.dtype == tf.float32 else _half_product(rows, matrix)


def output_logits(hidden, matrix):
    """As `reference.output_logits`."""
    width, vocabulary = hidden.shape[-1], matrix.shape[0]

    @tf.custom_gradient
    def half_product(rows, table):
        def backward(gradient):
            # In half precision too: TensorFlow has no gradient for a product of mixed types.
            slope = tf.cast(gradient, rows.dtype)
            return tf.matmul(slope, table), tf.matmul(slope, rows, transpose_a=True)

        return _product(rows, table), backward

    rows = tf.reshape(hidden, (-1, width))
    logits = _product(rows, matrix) if hidden.dtype == tf.float32 else half_product(rows, matrix)
    logits = tf.reshape(logits, tf.concat([tf.shape(hidden)[:-1], [vocabulary]], axis=0))
    return tf.ensure_shape(logits, (*hidden.shape[:-1], vocabulary))


def chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=True):
    """As `reference.chunked_log_probs`, one chunk of logits alive at a time in both passes.

    Batch and length may be unknown while tracing, as they are where the last batch of an epoch is smaller.
    """
    width = hidden.shape[2]
    batch, length = tf.shape(hidden)[0], tf.shape(hidden)[1]
    chunk = tf.minimum(chunk, length)
    count = (length + chunk - 1) // chunk

    def in_chunks(array):
        padding = [[0, 0], [0, count * chunk - length]] + [[0, 0]] * (array.shape.rank - 2)
        parts = tf.reshape(tf.pad(array, padding), (batch, count, chunk, *array.shape[2:]))
        parts = tf.transpose(parts, [1, 0, 2, *range(3, parts.shape.rank)])
        return tf.reshape(parts, (count, batch * chunk, *array.shape[2:]))

    def from_chunks(stacked, static_shape):
        rows = tf.reshape(stacked, (count, batch, chunk, *stacked.shape[2:]))
        rows = tf.transpose(rows, [1, 0, 2, *range(3, rows.shape.rank)])
        return tf.ensure_shape(tf.reshape(rows, (batch, count * chunk, *rows.shape[3:]))[:, :length], static_shape)

    def logits_of(part, table):
        return reference.soft_capped(_product(part, table), soft_cap) / temperature

    def loop(body, *starts):
        # One iteration in flight: TensorFlow would otherwise run chunks side by side and hold all logits after all.
        return tf.while_loop(
            lambda i, *_: i < count, body, (tf.constant(0), *starts), parallel_iterations=1, maximum_iterations=count
        )

    def empty(number):
        return [tf.TensorArray(tf.float32, size=count, element_shape=[None]) for _ in range(number)]

    target_ids = in_chunks(tf.cast(target_ids, tf.int32))

    @tf.custom_gradient
    def run(states, table):
        parts = in_chunks(states)

        def forward(i, *arrays):
            found = reference.softmax_log_probs(logits_of(parts[i], table), target_ids[i], with_entropy)
            return i + 1, *[array.write(i, each) for array, each in zip(arrays, found, strict=False)]

        _, *arrays = loop(forward, *empty(2 if with_entropy else 1))
        log_probs, *entropy = (array.stack() for array in arrays)

        def backward(gradient, *_):
            weights = in_chunks(gradient)

            def step(i, table_gradient, parts_gradient):
                logits, ids = logits_of(parts[i], table), target_ids[i][:, None]
                total = tf.gather(logits, ids, axis=1, batch_dims=1) - log_probs[i][:, None]
                places = tf.stack([tf.range(tf.size(ids)), ids[:, 0]], axis=1)
                slope = tf.tensor_scatter_nd_sub(tf.exp(logits - total), places, tf.ones_like(total[:, 0]))
                slope *= -(weights[i] / temperature)[:, None]
                if soft_cap is not None:
                    slope *= 1.0 - tf.square(logits * temperature / soft_cap)
                slope = tf.cast(slope, states.dtype)
                table_gradient += tf.cast(tf.matmul(slope, parts[i], transpose_a=True), tf.float32)
                return i + 1, table_gradient, parts_gradient.write(i, tf.matmul(slope, table))

            start = tf.zeros(table.shape, tf.float32)
            array = tf.TensorArray(states.dtype, size=count, element_shape=[None, width])
            _, table_gradient, parts_gradient = loop(step, start, array)
            return from_chunks(parts_gradient.stack(), hidden.shape), tf.cast(table_gradient, table.dtype)

        return [from_chunks(each, hidden.shape[:2]) for each in (log_probs, *entropy)], backward

    found = run(hidden, matrix)
    return found[0], tf.stop_gradient(found[1]) if with_entropy else None
