"""Gradients in double precision on whichever backend runs: the identities of these tests hold to 1e-12, not to
float32."""

import contextlib

import keras
import numpy as np
import pytest


def _gradient(function, x):
    """d function(x) / dx for a scalar function of one float64 array, by the backend's own differentiation."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(x)))
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            value = function(variable)
        result = tape.gradient(value, variable)
        return np.zeros_like(x) if result is None else np.asarray(result)
    import torch

    tensor = torch.tensor(x, requires_grad=True)
    value = function(tensor)
    if not value.requires_grad:
        return np.zeros_like(x)
    (result,) = torch.autograd.grad(value, tensor, allow_unused=True)
    return np.zeros_like(x) if result is None else result.numpy()


@pytest.fixture
def gradient():
    """`gradient(function, x)`, with 64-bit arrays switched on for the length of the test."""
    context = contextlib.nullcontext()
    if keras.backend.backend() == "jax":
        import jax

        context = jax.enable_x64(True)
    with context:
        yield _gradient
