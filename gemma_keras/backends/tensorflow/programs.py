"""Compiled programs over a model's variables, on TensorFlow."""

import keras
import tensorflow as tf


def compiled(function):
    """A `tf.function` compiled by XLA.

    Its Python asks for no tensor's value, so that AutoGraph, which would rewrite every function that is traced, for a
    tenth of the time that takes, is off.
    """
    return tf.function(function, jit_compile=True, autograph=False)


def _tensors(arrays):
    # A numpy array or number would be traced as a constant, once per value.
    return tf.nest.map_structure(tf.convert_to_tensor, arrays)


def compile_forward(function, models):
    """`function(*arrays)` compiled, reading the present values of the models' variables at each call; no gradients."""
    del models  # a tf.function reads variables by reference
    run = compiled(function)
    return lambda *arrays: run(*_tensors(arrays))


def compile_gradients(function, model):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable (*arrays, sums=None) → (loss, aux, gradients).

    gradients: list in the order of `model.trainable_variables`; `sums` themselves, added to in place, where given.
    """
    trainable = [variable.value for variable in model.trainable_variables]

    def differentiate(arrays):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            loss, aux = function(*arrays)
        gradients = tape.gradient(loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, aux, [tf.convert_to_tensor(g) for g in gradients]

    run = compiled(differentiate)

    @compiled
    def run_onto(sums, arrays):
        loss, aux, found = differentiate(arrays)
        for variable, gradient in zip(sums, found, strict=True):
            variable.assign_add(gradient)
        return loss, aux

    def gradients(*arrays, sums=None):
        return run(_tensors(arrays)) if sums is None else (*run_onto(sums, _tensors(arrays)), sums)

    return gradients


def zero_gradients(model):
    """Zeros to start the `sums` of `compile_gradients` from: variables, which a program can write to."""
    return [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in model.trainable_variables]


def to_host(tensor):
    """The tensor as a numpy array."""
    return keras.ops.convert_to_numpy(tensor)
