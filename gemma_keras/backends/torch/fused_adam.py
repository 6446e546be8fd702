"""Keras' Adam and AdamW in one pass over the weights, on PyTorch."""

import contextlib
import functools

import keras
import torch
from keras import ops
from torch.optim.adam import adam


@contextlib.contextmanager
def fast_updates(optimizer):
    """As `reference.fast_updates`: Keras' Adam and AdamW in float32 update their variables in one fused pass, in place
    of ten.

    Weight decay, clipping, accumulation and averages stay Keras': only the innermost step is another, and the
    optimizer's own variables are what it reads and writes. Other optimizers, and `amsgrad`, are left as they are.
    """
    if type(optimizer) not in _keras_adams() or optimizer.amsgrad:
        yield
        return
    # On the object and for a while only, so that nothing of it is saved, copied or subclassed.
    optimizer._parallel_update_step = functools.partial(_update_step, optimizer)
    try:
        yield
    finally:
        vars(optimizer).pop("_parallel_update_step", None)  # an inner context may have ended first


@functools.cache
def _keras_adams():
    # Keras makes these classes its own subclasses on torch; a user's subclass is neither of them.
    # Named, as others are numbered through.
    return type(keras.optimizers.Adam(name="adam")), type(keras.optimizers.AdamW(name="adamw"))


def _update_step(optimizer, gradients, variables, learning_rate):
    weights = [variable.value for variable in variables]
    if not all(weight.dtype == torch.float32 and weight.is_contiguous() for weight in weights):
        type(optimizer)._parallel_update_step(optimizer, gradients, variables, learning_rate)
        return
    indices = [optimizer._get_variable_index(variable) for variable in variables]
    step = ops.cast(optimizer.iterations + 1, "float32")
    decay_1, decay_2 = (ops.power(ops.cast(beta, "float32"), step) for beta in (optimizer.beta_1, optimizer.beta_2))
    rate = ops.cast(learning_rate, "float32") * ops.sqrt(1 - decay_2) / (1 - decay_1)
    # Keras adds epsilon outside the bias correction, which is in its rate; torch's own is 1 at infinitely many steps.
    endless = torch.full((), torch.inf, device=weights[0].device)
    adam(
        weights,
        [gradient.contiguous() for gradient in gradients],
        [optimizer._momentums[i].value for i in indices],
        [optimizer._velocities[i].value for i in indices],
        max_exp_avg_sqs=[],
        state_steps=[endless] * len(weights),
        fused=True,
        amsgrad=False,
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        lr=rate,
        weight_decay=0.0,
        eps=optimizer.epsilon,
        maximize=False,
    )
