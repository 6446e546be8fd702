"""Logits, and log-probabilities without all of them, on TensorFlow."""

import tensorflow as tf
from tensorflow.python.eager.record import should_record_backprop

from gemma_keras.backends import reference
from gemma_keras.backends.tensorflow.programs import compiled


@compiled
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


class _Chunks:
    """Arrays (b, m, ...) as (count, b * chunk, ...), some positions of every row together, and back.

    Batch and length may be unknown while tracing, as they are where the last batch of an epoch is smaller.
    """

    def __init__(self, hidden, chunk):
        self.batch, self.length = tf.shape(hidden)[0], tf.shape(hidden)[1]
        self.chunk = tf.minimum(chunk, self.length)
        self.count = (self.length + self.chunk - 1) // self.chunk

    def split(self, array):
        padding = [[0, 0], [0, self.count * self.chunk - self.length]] + [[0, 0]] * (array.shape.rank - 2)
        parts = tf.reshape(tf.pad(array, padding), (self.batch, self.count, self.chunk, *array.shape[2:]))
        parts = tf.transpose(parts, [1, 0, 2, *range(3, parts.shape.rank)])
        return tf.reshape(parts, (self.count, self.batch * self.chunk, *array.shape[2:]))

    def join(self, stacked, static_shape):
        rows = tf.reshape(stacked, (self.count, self.batch, self.chunk, *stacked.shape[2:]))
        rows = tf.transpose(rows, [1, 0, 2, *range(3, rows.shape.rank)])
        rows = tf.reshape(rows, (self.batch, self.count * self.chunk, *rows.shape[3:]))
        return tf.ensure_shape(rows[:, : self.length], static_shape)

    def loop(self, body, *starts):
        # One iteration in flight: TensorFlow would otherwise run chunks side by side and hold all logits after all.
        _, *found = tf.while_loop(
            lambda i, *_: i < self.count,
            lambda i, *rest: (i + 1, *body(i, *rest)),
            (tf.constant(0), *starts),
            parallel_iterations=1,
            maximum_iterations=self.count,
        )
        return found

    def arrays(self, number, dtype=tf.float32, width=()):
        return [tf.TensorArray(dtype, size=self.count, element_shape=[None, *width]) for _ in range(number)]


def _logits(rows, matrix, soft_cap, temperature):
    logits = reference.soft_capped(_product(rows, matrix), soft_cap)
    return logits if temperature == 1.0 else logits / temperature


def _slope(powers, logits, target_ids, scale, factor, soft_cap, temperature):
    """Gradient of weighted log-probabilities by the raw product: (one-hot - softmax) * factor, (n, v).

    Args:
        powers: exponentials (n, v). scale: (n,), what makes them the softmax. factor: (n,).
    """
    places = tf.stack([tf.range(tf.size(target_ids)), target_ids], axis=1)
    factor /= temperature
    # Added where the target is, and not subtracted from a (n, v) one-hot.
    slope = tf.tensor_scatter_nd_add(powers * -(scale * factor)[:, None], places, factor)
    return slope if soft_cap is None else slope * (1.0 - tf.square(logits * (temperature / soft_cap)))


def _table_product(slope, rows):
    return tf.cast(tf.matmul(slope, rows, transpose_a=True), tf.float32)


def _with_slopes(hidden, table, target_ids, weights, chunk, settings, with_entropy, trains_table):
    """Log-probabilities (b, m), and entropy, with their gradients times `weights` (b, m) from the same logits.

    Returns:
        [log_probs] or [log_probs, entropy]; states' gradient (b, m, d); the table's, float32 (v, d), or None.
    """
    chunks = _Chunks(hidden, chunk)
    parts, ids, factors = (chunks.split(array) for array in (hidden, target_ids, weights))

    def step(i, slopes, *rest):
        arrays, sums = rest[: 1 + with_entropy], rest[1 + with_entropy :]
        logits = _logits(parts[i], table, *settings)
        shifted = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
        powers = tf.exp(shifted)
        mass = tf.reduce_sum(powers, axis=-1)
        found = [tf.gather(shifted, ids[i], axis=1, batch_dims=1) - tf.math.log(mass)]
        if with_entropy:
            found.append(tf.math.log(mass) - tf.reduce_sum(powers * shifted, axis=-1) / mass)
        slope = tf.cast(_slope(powers, logits, ids[i], 1.0 / mass, factors[i], *settings), hidden.dtype)
        written = [array.write(i, each) for array, each in zip(arrays, found, strict=True)]
        added = [each + _table_product(slope, parts[i]) for each in sums]
        return slopes.write(i, tf.matmul(slope, table)), *written, *added

    starts = chunks.arrays(1, hidden.dtype, hidden.shape[2:]) + chunks.arrays(1 + with_entropy)
    slopes, *found = chunks.loop(step, *starts, *([tf.zeros(table.shape, tf.float32)] if trains_table else []))
    figures = [chunks.join(array.stack(), hidden.shape[:2]) for array in found[: 1 + with_entropy]]
    return figures, chunks.join(slopes.stack(), hidden.shape), found[-1] if trains_table else None


def chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=True):
    """As `reference.chunked_log_probs`, one chunk of logits alive at a time in both passes."""
    hidden, matrix = tf.convert_to_tensor(hidden), tf.convert_to_tensor(matrix)
    target_ids, settings = tf.cast(target_ids, tf.int32), (soft_cap, temperature)
    if should_record_backprop([hidden]) and not should_record_backprop([matrix]):
        found = _frozen_log_probs(hidden, matrix, target_ids, chunk, settings, with_entropy)
    else:
        found = _chunked_log_probs(hidden, matrix, target_ids, chunk, settings, with_entropy)
    return found[0], tf.stop_gradient(found[1]) if with_entropy else None


def _frozen_log_probs(hidden, matrix, target_ids, chunk, settings, with_entropy):
    # As with an adapter: the states' gradient is all there is, and taken here it spares the second pass over the
    # logits.
    @tf.custom_gradient
    def run(states):
        ones = tf.ones_like(target_ids, tf.float32)
        found, slopes, _ = _with_slopes(states, matrix, target_ids, ones, chunk, settings, with_entropy, False)
        return found, lambda gradient, *_: slopes * tf.cast(gradient, slopes.dtype)[:, :, None]

    return run(hidden)


def _chunked_log_probs(hidden, matrix, target_ids, chunk, settings, with_entropy):
    chunks = _Chunks(hidden, chunk)
    ids = chunks.split(target_ids)

    @tf.custom_gradient
    def run(states, table):
        parts = chunks.split(states)

        def forward(i, *arrays):
            found = reference.softmax_log_probs(_logits(parts[i], table, *settings), ids[i], with_entropy)
            return [array.write(i, each) for array, each in zip(arrays, found, strict=False)]

        found = [array.stack() for array in chunks.loop(forward, *chunks.arrays(1 + with_entropy))]

        def backward(gradient, *_):
            factors = chunks.split(gradient)

            def step(i, table_gradient, slopes):
                logits = _logits(parts[i], table, *settings)
                total = tf.gather(logits, ids[i], axis=1, batch_dims=1) - found[0][i]
                powers = tf.exp(logits - total[:, None])
                slope = _slope(powers, logits, ids[i], 1.0, factors[i], *settings)
                slope = tf.cast(slope, states.dtype)
                return table_gradient + _table_product(slope, parts[i]), slopes.write(i, tf.matmul(slope, table))

            start = tf.zeros(table.shape, tf.float32)
            table_gradient, slopes = chunks.loop(step, start, *chunks.arrays(1, states.dtype, hidden.shape[2:]))
            return chunks.join(slopes.stack(), hidden.shape), tf.cast(table_gradient, table.dtype)

        return [chunks.join(each, hidden.shape[:2]) for each in found], backward

    return run(hidden, matrix)


def weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk):
    """As `reference.weighted_log_prob`; the gradients come from the forward pass' logits, a chunk at a time.

    A tape that begins outside the present `tf.function` is not seen: then the logits are computed again.
    """
    hidden, matrix = tf.convert_to_tensor(hidden), tf.convert_to_tensor(matrix)
    target_ids, weights = tf.cast(target_ids, tf.int32), tf.stop_gradient(tf.cast(weights, tf.float32))
    trains_table = should_record_backprop([matrix])
    if not (trains_table or should_record_backprop([hidden])):
        log_probs, _ = chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=False)
        return reference.weighted_sum(log_probs, weights), tf.stop_gradient(log_probs)

    @tf.custom_gradient
    def run(states, table):
        settings = soft_cap, temperature
        (log_probs,), slopes, table_slope = _with_slopes(
            states, table, target_ids, weights, chunk, settings, False, trains_table
        )

        def backward(scale, _):
            table_gradient = tf.cast(table_slope * scale, table.dtype) if trains_table else None
            return slopes * tf.cast(scale, slopes.dtype), table_gradient

        return (reference.weighted_sum(log_probs, weights), log_probs), backward

    total, log_probs = run(hidden, matrix)
    return total, tf.stop_gradient(log_probs)
