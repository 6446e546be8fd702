"""Hot operations on JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from keras import StatelessScope

from gemma_keras.backends import reference
from gemma_keras.backends.reference import HIDDEN_SCORE, number_of_chunks

IS_EAGER = False
rms_norm = reference.rms_norm
rotate = reference.rotate


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
    """As `reference.linear`; half-precision products accumulate in float32 in both passes, without which XLA is slow on
    a CPU."""
    kernel = jnp.asarray(getattr(kernel, "value", kernel))
    return jnp.matmul(x, kernel) if x.dtype == jnp.float32 else _half_linear(x, kernel)


def attention(queries, keys, values, visible, soft_cap=None):
    """As `reference.attention`; products accumulate in float32, which bfloat16 on a CPU needs to be fast."""
    batch, time, heads, head_dim = queries.shape
    shared, slots = keys.shape[2], keys.shape[1]
    group = heads // shared
    rows = (
        queries.reshape(batch, time, shared, group, head_dim)
        .transpose(0, 2, 3, 1, 4)
        .reshape(batch, shared, group * time, head_dim)
    )
    scores = jnp.einsum("bkqh,bskh->bkqs", rows, keys, preferred_element_type=jnp.float32)
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    scores = jnp.where(visible[:, None, None], scores.reshape(batch, shared, group, time, slots), HIDDEN_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(queries.dtype).reshape(batch, shared, group * time, slots)
    mixed = jnp.einsum("bkqs,bskh->bkqh", weights, values).reshape(batch, shared, group, time, head_dim)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, time, heads, head_dim)


def update_cache(cache, new, index):
    """As `reference.update_cache`; XLA writes in place inside a compiled loop."""
    return jax.lax.dynamic_update_slice(cache, new.astype(cache.dtype), (0, index, 0, 0))


def _logits(hidden, matrix, soft_cap, temperature):
    raw = jnp.einsum("bmd,vd->bmv", hidden, matrix, preferred_element_type=jnp.float32)
    capped = raw if soft_cap is None else soft_cap * jnp.tanh(raw / soft_cap)
    return capped / temperature


def _in_chunks(array, chunk):
    batch, length = array.shape[:2]
    count = number_of_chunks(length, chunk)
    padded = jnp.pad(array, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (array.ndim - 2))
    return jnp.swapaxes(padded.reshape(batch, count, chunk, *array.shape[2:]), 0, 1)


def _from_chunks(chunks, length):
    joined = jnp.swapaxes(chunks, 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def chunked_logsumexp(hidden, matrix, soft_cap, temperature, chunk, with_entropy=True):
    """As `reference.chunked_logsumexp`, one chunk of logits alive at a time in both passes."""

    def one_chunk(_, part):
        logits = _logits(part, matrix, soft_cap, temperature)
        total = jax.nn.logsumexp(logits, axis=-1)
        if not with_entropy:
            return None, (total, None)
        return None, (total, total - jnp.sum(jnp.exp(logits - total[..., None]) * logits, axis=-1))

    # A scan is sequenced: unrolled chunks would run side by side in XLA and hold all logits after all.
    _, (total, entropy) = jax.lax.scan(one_chunk, None, _in_chunks(hidden, chunk))
    return _from_chunks(total, hidden.shape[1]), None if entropy is None else _from_chunks(entropy, hidden.shape[1])


def _chunked_logsumexp_forward(hidden, matrix, soft_cap, temperature, chunk, with_entropy):
    is_frozen = not matrix.perturbed
    hidden, matrix = hidden.value, matrix.value
    if not is_frozen:
        total, entropy = chunked_logsumexp(hidden, matrix, soft_cap, temperature, chunk, with_entropy)
        return (total, entropy), (hidden, matrix, total, None)

    # As with an adapter: the states' gradient is all there is, and taken here it spares the second pass over the
    # logits.
    def one_chunk(_, part):
        logits = _logits(part, matrix, soft_cap, temperature)
        total = jax.nn.logsumexp(logits, axis=-1)
        shares = jnp.exp(logits - total[..., None])
        entropy = total - jnp.sum(shares * logits, axis=-1) if with_entropy else None
        slope = (shares * _steepness(logits, soft_cap, temperature)).astype(hidden.dtype)
        part_slopes = jnp.einsum("bmv,vd->bmd", slope, matrix, preferred_element_type=jnp.float32).astype(hidden.dtype)
        return None, (total, entropy, part_slopes)

    _, found = jax.lax.scan(one_chunk, None, _in_chunks(hidden, chunk))
    total, entropy, slopes = (None if each is None else _from_chunks(each, hidden.shape[1]) for each in found)
    return (total, entropy), (None, None, None, slopes)


def _steepness(logits, soft_cap, temperature):
    """What a step of the raw product moves the capped and tempered logits by: a number, or with a cap (b, m, v)."""
    return 1.0 / temperature if soft_cap is None else (1.0 - jnp.square(logits * temperature / soft_cap)) / temperature


def _chunked_logsumexp_backward(soft_cap, temperature, chunk, with_entropy, saved, cotangents):
    del with_entropy  # it has no gradient
    hidden, matrix, total, slopes = saved
    total_gradient = cotangents[0]
    if slopes is not None:
        return slopes * total_gradient[..., None].astype(slopes.dtype), None

    def one_chunk(matrix_gradient, parts):
        part, part_total, weight = parts
        logits = _logits(part, matrix, soft_cap, temperature)
        slope = jnp.exp(logits - part_total[..., None]) * weight[..., None] * _steepness(logits, soft_cap, temperature)
        slope = slope.astype(hidden.dtype)
        part_gradient = jnp.einsum("bmv,vd->bmd", slope, matrix, preferred_element_type=jnp.float32).astype(
            hidden.dtype
        )
        matrix_gradient += jnp.einsum("bmv,bmd->vd", slope, part, preferred_element_type=jnp.float32)
        return matrix_gradient, part_gradient

    start = jnp.zeros(matrix.shape, jnp.float32)
    parts = (_in_chunks(hidden, chunk), _in_chunks(total, chunk), _in_chunks(total_gradient, chunk))
    matrix_gradient, hidden_gradient = jax.lax.scan(one_chunk, start, parts)
    return _from_chunks(hidden_gradient, hidden.shape[1]), matrix_gradient.astype(matrix.dtype)


chunked_logsumexp.defvjp(_chunked_logsumexp_forward, _chunked_logsumexp_backward, symbolic_zeros=True)


def compile_forward(function, models):
    """`function(*arrays)` compiled, reading the present values of the models' variables at each call; no gradients."""
    variables = _unique([variable for model in models for variable in model.variables])

    @jax.jit
    def run(values, *arrays):
        # Without the scope the weights would be baked into the program as constants.
        with StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arrays)

    return lambda *arrays: run([v.value for v in variables], *arrays)


def compile_gradients(function, model):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable that returns (loss, aux, gradients).

    gradients: list in the order of `model.trainable_variables`.
    """
    trainable, fixed = list(model.trainable_variables), list(model.non_trainable_variables)

    def loss(values, fixed_values, arrays):
        mapping = list(zip(trainable + fixed, list(values) + list(fixed_values), strict=True))
        with StatelessScope(state_mapping=mapping):
            return function(*arrays)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def gradients(*arrays):
        (value, aux), grads = run([v.value for v in trainable], [v.value for v in fixed], arrays)
        return value, aux, grads

    return gradients


def compile_update(optimizer, model):
    """A guarded optimizer step: a callable (gradients, scale, clip_norm) → global gradient norm after scaling, float32
    ().

    Gradients are multiplied by `scale`, clipped to the global norm `clip_norm` (0: not clipped) and applied. Where the
    norm is not finite, weights and optimizer stay as they are. The old weights' buffers are given to the new ones:
    nothing else may hold them.
    """
    trainable = list(model.trainable_variables)
    optimizer.build(trainable)
    state = list(optimizer.variables)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def run(values, state_values, gradients, scale, clip_norm):
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in gradients)) * scale
        factor = scale * jnp.where(clip_norm > 0, jnp.minimum(1.0, clip_norm / (norm + 1e-12)), 1.0)
        scaled = [(g * factor).astype(v.dtype) for g, v in zip(gradients, values, strict=True)]
        new_values, new_state = optimizer.stateless_apply(state_values, scaled, values)
        good = jnp.isfinite(norm)

        def keep(new, old):
            return jnp.where(good, new, old)

        return (
            jax.tree.map(keep, list(new_values), list(values)),
            jax.tree.map(keep, list(new_state), list(state_values)),
            norm,
        )

    def update(gradients, scale=1.0, clip_norm=0.0):
        values, states = [v.value for v in trainable], [v.value for v in state]
        values, states, norm = run(values, states, gradients, np.float32(scale), np.float32(clip_norm))
        for variable, value in zip(trainable + state, values + states, strict=True):
            variable.assign(value)
        return norm

    return update


@jax.jit
def add_gradients(a, b):
    """Elementwise sum of two lists of gradients."""
    return [x + y for x, y in zip(a, b, strict=True)]


def to_host(tensor):
    """The tensor as a numpy array."""
    return np.asarray(tensor)


def _unique(variables):
    return list({id(v): v for v in variables}.values())
