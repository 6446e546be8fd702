"""Logits, and log-probabilities without all of them, on JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gemma_keras.backends import reference
from gemma_keras.backends.reference import number_of_chunks


def _product(hidden, matrix):
    if np.prod(hidden.shape[:-1]) == 1:
        # One row, as in a chat: XLA would make the other form a float32 copy of a half-precision matrix on a CPU.
        return jnp.matmul(hidden, matrix.T, preferred_element_type=jnp.float32)
    return jnp.einsum("...d,vd->...v", hidden, matrix, preferred_element_type=jnp.float32)


def _matrix_product(slope, hidden):
    """The other product of the gradient: slope (..., v) and hidden (..., d) to float32 (v, d)."""
    slope, hidden = slope.reshape(-1, slope.shape[-1]), hidden.reshape(-1, hidden.shape[-1])
    return jnp.einsum("nv,nd->vd", slope, hidden, preferred_element_type=jnp.float32)


def _hidden_product(slope, matrix):
    """slope (..., v) and matrix (v, d) to (..., d) in their dtype."""
    return jnp.einsum("...v,vd->...d", slope, matrix, preferred_element_type=jnp.float32).astype(slope.dtype)


@jax.custom_vjp
def _half_logits(hidden, matrix):
    return _product(hidden, matrix)


def _half_logits_backward(saved, gradient):
    hidden, matrix = saved
    # In half precision too: JAX's own rule would multiply with the matrix in float32.
    gradient = gradient.astype(hidden.dtype)
    return _hidden_product(gradient, matrix), _matrix_product(gradient, hidden).astype(matrix.dtype)


_half_logits.defvjp(lambda hidden, matrix: (_product(hidden, matrix), (hidden, matrix)), _half_logits_backward)


def output_logits(hidden, matrix):
    """As `reference.output_logits`."""
    return _product(hidden, matrix) if hidden.dtype == jnp.float32 else _half_logits(hidden, matrix)


def _logits(hidden, matrix, soft_cap, temperature):
    return reference.soft_capped(_product(hidden, matrix), soft_cap) / temperature


def _steepness(logits, soft_cap, temperature):
    """What a step of the raw product moves the capped and tempered logits by: a number, or with a cap (b, m, v)."""
    return 1.0 / temperature if soft_cap is None else (1.0 - jnp.square(logits * temperature / soft_cap)) / temperature


def _slope(logits, target_ids, log_probs, soft_cap, temperature):
    """Gradient of each target's log-probability by the raw product: one-hot minus softmax, (b, m, v)."""
    target_ids, log_probs = target_ids[..., None], log_probs[..., None]
    total = jnp.take_along_axis(logits, target_ids, axis=-1) - log_probs
    # Compared and not scattered: this fuses with the exponential.
    is_target = jnp.arange(logits.shape[-1], dtype=target_ids.dtype) == target_ids
    return (is_target - jnp.exp(logits - total)) * _steepness(logits, soft_cap, temperature)


def _in_chunks(array, chunk):
    batch, length = array.shape[:2]
    count = number_of_chunks(length, chunk)
    padded = jnp.pad(array, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (array.ndim - 2))
    return jnp.swapaxes(padded.reshape(batch, count, chunk, *array.shape[2:]), 0, 1)


def _from_chunks(chunks, length):
    joined = jnp.swapaxes(chunks, 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy):
    def one_chunk(_, parts):
        part, ids = parts
        return None, reference.softmax_log_probs(_logits(part, matrix, soft_cap, temperature), ids, with_entropy)

    # A scan is sequenced: unrolled chunks would run side by side in XLA and hold all logits after all.
    _, found = jax.lax.scan(one_chunk, None, (_in_chunks(hidden, chunk), _in_chunks(target_ids, chunk)))
    return tuple(None if each is None else _from_chunks(each, hidden.shape[1]) for each in found)


def _chunked_log_probs_forward(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy):
    is_frozen = not matrix.perturbed
    hidden, matrix, target_ids = hidden.value, matrix.value, target_ids.value
    if not is_frozen:
        found = _chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy)
        return found, (hidden, matrix, target_ids, found[0], None)
    # As with an adapter: the states' gradient is all there is, and taken here it spares the second pass over the
    # logits.
    found, slopes, _ = _with_slopes(
        hidden, matrix, target_ids, None, soft_cap, temperature, chunk, with_entropy, trains_matrix=False
    )
    return found, (None, None, None, None, slopes)


def _with_slopes(
    hidden, matrix, target_ids, weights, soft_cap, temperature, chunk, with_entropy=False, trains_matrix=True
):
    """Log-probabilities and entropy, and their gradients times `weights` (b, m), or 1, from the same logits.

    Returns:
        (log_probs, entropy); states' gradient (b, m, d); the matrix's, float32 (v, d), or None.
    """

    def one_chunk(matrix_slope, parts):
        part, ids, weight = parts
        logits = _logits(part, matrix, soft_cap, temperature)
        log_probs, entropy = reference.softmax_log_probs(logits, ids, with_entropy)
        slope = _slope(logits, ids, log_probs, soft_cap, temperature)
        slope = (slope if weight is None else slope * weight[..., None]).astype(hidden.dtype)
        if trains_matrix:
            matrix_slope += _matrix_product(slope, part)
        return matrix_slope, (log_probs, entropy, _hidden_product(slope, matrix))

    start = jnp.zeros(matrix.shape, jnp.float32) if trains_matrix else None
    parts = tuple(None if array is None else _in_chunks(array, chunk) for array in (hidden, target_ids, weights))
    matrix_slope, found = jax.lax.scan(one_chunk, start, parts)
    *found, slopes = (None if each is None else _from_chunks(each, hidden.shape[1]) for each in found)
    return tuple(found), slopes, matrix_slope


def _chunked_log_probs_backward(soft_cap, temperature, chunk, with_entropy, saved, cotangents):
    del with_entropy  # it has no gradient
    hidden, matrix, target_ids, log_probs, slopes = saved
    weights = cotangents[0]
    if slopes is not None:
        return slopes * weights[..., None].astype(slopes.dtype), None, None

    def one_chunk(matrix_gradient, parts):
        part, ids, part_log_probs, weight = parts
        logits = _logits(part, matrix, soft_cap, temperature)
        slope = _slope(logits, ids, part_log_probs, soft_cap, temperature) * weight[..., None]
        slope = slope.astype(hidden.dtype)
        return matrix_gradient + _matrix_product(slope, part), _hidden_product(slope, matrix)

    start = jnp.zeros(matrix.shape, jnp.float32)
    parts = tuple(_in_chunks(array, chunk) for array in (hidden, target_ids, log_probs, weights))
    matrix_gradient, hidden_gradient = jax.lax.scan(one_chunk, start, parts)
    return _from_chunks(hidden_gradient, hidden.shape[1]), matrix_gradient.astype(matrix.dtype), None


_chunked_log_probs.defvjp(_chunked_log_probs_forward, _chunked_log_probs_backward, symbolic_zeros=True)


def chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=True):
    """As `reference.chunked_log_probs`, one chunk of logits alive at a time in both passes."""
    return _chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk):
    log_probs, _ = _chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, False)
    return reference.weighted_sum(log_probs, weights), log_probs


def _weighted_log_prob_forward(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk):
    trains_matrix = matrix.perturbed
    hidden, matrix, target_ids, weights = (each.value for each in (hidden, matrix, target_ids, weights))
    (log_probs, _), slopes, matrix_slope = _with_slopes(
        hidden, matrix, target_ids, weights, soft_cap, temperature, chunk, trains_matrix=trains_matrix
    )
    # Of no elements: it tells the backward pass the matrix' dtype.
    like = jnp.zeros((0,), matrix.dtype)
    return (reference.weighted_sum(log_probs, weights), log_probs), (slopes, matrix_slope, like)


def _weighted_log_prob_backward(soft_cap, temperature, chunk, saved, cotangents):
    del soft_cap, temperature, chunk
    slopes, matrix_slope, like = saved
    scale = cotangents[0]
    matrix_gradient = None if matrix_slope is None else (matrix_slope * scale).astype(like.dtype)
    return (slopes * scale).astype(slopes.dtype), matrix_gradient, None, None


_weighted_log_prob.defvjp(_weighted_log_prob_forward, _weighted_log_prob_backward, symbolic_zeros=True)


def weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk):
    """As `reference.weighted_log_prob`; the gradients come from the forward pass' logits, a chunk at a time."""
    total, log_probs = _weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk)
    return total, jax.lax.stop_gradient(log_probs)
