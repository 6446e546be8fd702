"""Compiled programs over a model's variables, on TensorFlow."""

import keras
import tensorflow as tf


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


@tf.function(jit_compile=True)
def add_gradients(a, b):
    """Elementwise sum of two lists of gradients."""
    return [x + y for x, y in zip(a, b, strict=True)]


def to_host(tensor):
    """The tensor as a numpy array."""
    return keras.ops.convert_to_numpy(tensor)
