"""A weight matrix, and the cache, on JAX."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def _half_linear(x, kernel):
    return jnp.matmul(x, kernel, preferred_element_type=jnp.float32).astype(x.dtype)


def _half_linear_forward(x, kernel):
    return _half_linear(x, kernel), (x, kernel)


def _half_linear_backward(saved, gradient):
    x, kernel = saved
    x_gradient = jnp.matmul(gradient, kernel.T, preferred_element_type=jnp.float32).astype(x.dtype)
    rows, outer = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return x_gradient, jnp.matmul(rows.T, outer, preferred_element_type=jnp.float32).astype(kernel.dtype)


_half_linear.defvjp(_half_linear_forward, _half_linear_backward)


def linear(x, kernel):
    """As `reference.linear`.

    float32 products are of rows (n, i): of (b, t, i) XLA makes a transposed copy for every weight gradient. Those in
    half precision accumulate in float32 in both passes, without which XLA is slow on a CPU, and gain nothing by rows.
    """
    kernel = jnp.asarray(getattr(kernel, "value", kernel))
    if x.dtype != jnp.float32:
        return _half_linear(x, kernel)
    return jnp.matmul(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def update_cache(cache, new, index):
    """As `reference.update_cache`; XLA writes in place inside a compiled loop."""
    return jax.lax.dynamic_update_slice(cache, new.astype(cache.dtype), (0, index, 0, 0))
