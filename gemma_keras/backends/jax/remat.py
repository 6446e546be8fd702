"""Recomputation in the backward pass on JAX."""

import jax
import jax.numpy as jnp


def remat(function):
    """`function(x)` whose backward pass keeps x alone and computes the rest again; weights that it reads count too.

    `jax.checkpoint` holds the second computation back by a barrier, which XLA drops on a CPU before it orders the
    program: most of it then ran early and its results were kept after all. Here x itself waits for the gradient.

    Args:
        function: float array → float array, perhaps with other arrays in its closure.
    """

    def recomputed(x):
        pure, weights = jax.closure_convert(function, x)
        return _recomputed(pure, x, weights)

    return recomputed


def _recomputed(pure, x, weights):
    @jax.custom_vjp
    def run(x, weights):
        return pure(x, *weights)

    def forward(x, weights):
        return run(x, weights), (x, weights)

    def backward(kept, gradient):
        x, weights = kept
        # Nothing is added, but XLA cannot know it.
        nothing = jnp.minimum(jnp.abs(gradient[(0,) * gradient.ndim]), 0.0)
        _, pull = jax.vjp(lambda x, weights: pure(x, *weights), x + nothing.astype(x.dtype), weights)
        return pull(gradient)

    run.defvjp(forward, backward)
    return run(x, weights)
