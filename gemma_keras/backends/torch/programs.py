"""Functions over a model's variables, eager on PyTorch."""

import keras
import numpy as np
import torch


def _tensors(arrays):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)


def compile_forward(function, models):
    """`function(*arrays)` without gradients, reading the present values of the models' variables; eager on torch."""
    del models

    def run(*arrays):
        with torch.no_grad():
            return function(*_tensors(arrays))

    return run


def compile_gradients(function, model):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable that returns (loss, aux, gradients).

    gradients: list in the order of `model.trainable_variables`.
    """
    trainable = [variable.value for variable in model.trainable_variables]

    def gradients(*arrays):
        loss, aux = function(*_tensors(arrays))
        found = torch.autograd.grad(loss, trainable, allow_unused=True)
        found = [torch.zeros_like(v) if g is None else g for g, v in zip(found, trainable, strict=True)]
        return loss.detach(), keras.tree.map_structure(lambda x: x.detach(), aux), found

    return gradients


def add_gradients(a, b):
    """Elementwise sum of two lists of gradients; a's tensors are reused."""
    torch._foreach_add_(a, b)
    return a


def to_host(tensor):
    """The tensor as a numpy array."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))
