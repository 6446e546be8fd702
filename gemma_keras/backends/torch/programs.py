"""Functions over a model's variables, eager on PyTorch."""

import keras
import numpy as np
import torch


def _tensors(arrays):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)


def _tensors_and_counts(arrays):
    # What counts steps is looked at on the host for every slice of a cache: on a device each look would wait for it.
    return keras.tree.map_structure(
        lambda x: int(x) if isinstance(x, np.integer) else keras.ops.convert_to_tensor(x), arrays
    )


def compile_forward(function, models):
    """`function(*arrays)` without gradients, reading the present values of the models' variables; eager on torch."""
    del models

    def run(*arrays):
        with torch.no_grad():
            return function(*_tensors_and_counts(arrays))

    return run


def while_loop(goes_on, body, state):
    """As `reference.while_loop`; what is counted stays on the host, where Keras' own would make a tensor of it."""
    state = tuple(int(part) if isinstance(part, np.integer) else part for part in state)
    while goes_on(*state):
        state = body(*state)
    return state


def compile_gradients(function, model):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable (*arrays, sums=None) → (loss, aux, gradients).

    gradients: list in the order of `model.trainable_variables`; `sums` themselves, added to in place, where given.
    """
    trainable = [variable.value for variable in model.trainable_variables]

    def gradients(*arrays, sums=None):
        # Through `.grad` each gradient is added, and freed, as soon as it is known.
        _hand_over(trainable, [None] * len(trainable) if sums is None else sums)
        loss, aux = function(*_tensors(arrays))
        loss.backward(inputs=trainable)
        found = [torch.zeros_like(v) if v.grad is None else v.grad for v in trainable]
        _hand_over(trainable, [None] * len(trainable))
        return loss.detach(), keras.tree.map_structure(lambda x: x.detach(), aux), found

    return gradients


def _hand_over(weights, gradients):
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient


def zero_gradients(model):
    """Zeros to start the `sums` of `compile_gradients` from."""
    return [torch.zeros_like(variable.value) for variable in model.trainable_variables]


def to_host(tensor):
    """The tensor as a numpy array."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))
