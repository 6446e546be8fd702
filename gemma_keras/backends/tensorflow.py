"""Hot operations on TensorFlow."""

import keras
import numpy as np
import tensorflow as tf

from gemma_keras.backends import reference

IS_EAGER = False
linear = reference.linear
rms_norm = reference.rms_norm
rotate = reference.rotate
attention = reference.attention
update_cache = reference.update_cache


def chunked_logsumexp(hidden, matrix, soft_cap, temperature, chunk, with_entropy=True):
    """As `reference.chunked_logsumexp`, one chunk of logits alive at a time in both passes.

    Batch and length may be unknown while tracing, as they are where the last batch of an epoch is smaller.
    """
    width = hidden.shape[2]
    batch, length = tf.shape(hidden)[0], tf.shape(hidden)[1]
    chunk = tf.minimum(chunk, length)
    count = (length + chunk - 1) // chunk

    def in_chunks(array):
        padding = [[0, 0], [0, count * chunk - length]] + [[0, 0]] * (array.shape.rank - 2)
        parts = tf.reshape(tf.pad(array, padding), (batch, count, chunk, *array.shape[2:]))
        return tf.transpose(parts, [1, 0, 2, *range(3, parts.shape.rank)])

    def from_chunks(stacked, static_shape):
        rows = tf.transpose(stacked, [1, 0, 2, *range(3, stacked.shape.rank)])
        return tf.ensure_shape(tf.reshape(rows, (batch, count * chunk, *stacked.shape[3:]))[:, :length], static_shape)

    def logits_of(part, table):
        raw = tf.cast(tf.einsum("bmd,vd->bmv", part, table), tf.float32)
        return reference.soft_capped(raw, soft_cap) / temperature

    def loop(body, *starts):
        # One iteration in flight: TensorFlow would otherwise run chunks side by side and hold all logits after all.
        return tf.while_loop(
            lambda i, *_: i < count, body, (tf.constant(0), *starts), parallel_iterations=1, maximum_iterations=count
        )

    def empty(number):
        return [tf.TensorArray(tf.float32, size=count, element_shape=hidden.shape[:1] + [None]) for _ in range(number)]

    @tf.custom_gradient
    def run(states, table):
        parts = in_chunks(states)

        def forward(i, *arrays):
            logits = logits_of(parts[i], table)
            total = tf.reduce_logsumexp(logits, axis=-1)
            results = [total]
            if with_entropy:
                results.append(total - tf.reduce_sum(tf.exp(logits - total[..., None]) * logits, axis=-1))
            return i + 1, *[array.write(i, result) for array, result in zip(arrays, results, strict=True)]

        _, totals, *entropies = loop(forward, *empty(2 if with_entropy else 1))
        totals = totals.stack()

        def backward(total_gradient, *_):
            weights = in_chunks(total_gradient)

            def step(i, table_gradient, parts_gradient):
                logits = logits_of(parts[i], table)
                slope = tf.exp(logits - totals[i][..., None]) * (weights[i] / temperature)[..., None]
                if soft_cap is not None:
                    slope *= 1.0 - tf.square(logits * temperature / soft_cap)
                slope = tf.cast(slope, states.dtype)
                table_gradient += tf.cast(tf.einsum("bmv,bmd->vd", slope, parts[i]), tf.float32)
                return i + 1, table_gradient, parts_gradient.write(i, tf.einsum("bmv,vd->bmd", slope, table))

            start = tf.zeros(table.shape, tf.float32)
            array = tf.TensorArray(states.dtype, size=count, element_shape=hidden.shape[:1] + [None, width])
            _, table_gradient, parts_gradient = loop(step, start, array)
            return from_chunks(parts_gradient.stack(), hidden.shape), tf.cast(table_gradient, table.dtype)

        return [
            from_chunks(stacked, hidden.shape[:2]) for stacked in (totals, *[array.stack() for array in entropies])
        ], backward

    found = run(hidden, matrix)
    return found[0], tf.stop_gradient(found[1]) if with_entropy else None


def _tensors(arrays):
    # A numpy array or number would be traced as a constant, once per value.
    return tf.nest.map_structure(tf.convert_to_tensor, arrays)


def compile_forward(function, models):
    """`function(*arrays)` compiled, reading the present values of the models' variables at each call; no gradients."""
    del models  # a tf.function reads variables by reference
    run = tf.function(function, jit_compile=True)
    return lambda *arrays: run(*_tensors(arrays))


def compile_gradients(function, model):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable that returns (loss, aux, gradients).

    gradients: list in the order of `model.trainable_variables`.
    """
    trainable = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=True)
    def run(*arrays):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            loss, aux = function(*arrays)
        gradients = tape.gradient(loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, aux, [tf.convert_to_tensor(g) for g in gradients]

    return lambda *arrays: run(*_tensors(arrays))


def compile_update(optimizer, model):
    """A guarded optimizer step: a callable (gradients, scale, clip_norm) → global gradient norm after scaling, float32
    ().

    Gradients are multiplied by `scale`, clipped to the global norm `clip_norm` (0: not clipped) and applied. Where the
    norm is not finite, weights and optimizer stay as they are.
    """
    trainable = list(model.trainable_variables)
    optimizer.build(trainable)

    @tf.function(jit_compile=True)
    def run(gradients, scale, clip_norm):
        norm = tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients]) * scale
        factor = scale * tf.where(clip_norm > 0, tf.minimum(1.0, clip_norm / (norm + 1e-12)), 1.0)
        optimizer.apply(
            [tf.cast(tf.cast(g, tf.float32) * factor, v.dtype) for g, v in zip(gradients, trainable, strict=True)],
            trainable,
        )
        return norm

    @tf.function(jit_compile=True)
    def norm_of(gradients, scale):
        return tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients]) * scale

    def update(gradients, scale=1.0, clip_norm=0.0):
        scale = tf.constant(scale, tf.float32)
        norm = norm_of(gradients, scale)
        if np.isfinite(norm.numpy()):
            run(gradients, scale, tf.constant(clip_norm, tf.float32))
        return norm

    return update


@tf.function(jit_compile=True)
def add_gradients(a, b):
    """Elementwise sum of two lists of gradients."""
    return [x + y for x, y in zip(a, b, strict=True)]


def to_host(tensor):
    """The tensor as a numpy array."""
    return keras.ops.convert_to_numpy(tensor)
