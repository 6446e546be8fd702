"""Compiled programs over a model's variables, on JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from keras import StatelessScope

# Half precision is rounded where the model says so. By default XLA leaves roundings out where it can, which is not in
# the same places when it scores a response and when it learns from it: their ratio was then off by 0.03 a token.
_COMPILER_OPTIONS = {"xla_allow_excess_precision": False}


def compile_forward(function, models):
    """`function(*arrays)` compiled, reading the present values of the models' variables at each call; no gradients."""
    variables = _unique([variable for model in models for variable in model.variables])

    @functools.partial(jax.jit, compiler_options=_COMPILER_OPTIONS)
    def run(values, *arrays):
        # Without the scope the weights would be baked into the program as constants.
        with StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arrays)

    return lambda *arrays: run([v.value for v in variables], *arrays)


def compile_gradients(function, model):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable (*arrays, sums=None) → (loss, aux, gradients).

    gradients: list in the order of `model.trainable_variables`, added to `sums` where given. Those are used up: their
    buffers hold the result.
    """
    trainable, fixed = list(model.trainable_variables), list(model.non_trainable_variables)

    def loss(values, fixed_values, arrays):
        mapping = list(zip(trainable + fixed, list(values) + list(fixed_values), strict=True))
        with StatelessScope(state_mapping=mapping):
            return function(*arrays)

    differentiate = jax.value_and_grad(loss, has_aux=True)

    def add(sums, *arguments):
        result, found = differentiate(*arguments)
        return result, [s + g for s, g in zip(sums, found, strict=True)]

    run = jax.jit(differentiate, compiler_options=_COMPILER_OPTIONS)
    run_onto = jax.jit(add, donate_argnums=0, compiler_options=_COMPILER_OPTIONS)

    def gradients(*arrays, sums=None):
        arguments = [v.value for v in trainable], [v.value for v in fixed], arrays
        (value, aux), found = run(*arguments) if sums is None else run_onto(sums, *arguments)
        return value, aux, found

    return gradients


def zero_gradients(model):
    """Zeros to start the `sums` of `compile_gradients` from."""
    return [jnp.zeros_like(v.value, device=v.value.sharding) for v in model.trainable_variables]


def to_host(tensor):
    """The tensor as a numpy array."""
    return np.asarray(tensor)


def _unique(variables):
    return list({id(v): v for v in variables}.values())
