"""The hot operations in plain `keras.ops`: readable, and what the native ones are tested against."""

import contextlib
import math

from keras import ops

from gemma_keras.limits import BRANCHES

HIDDEN_SCORE = -1e30  # finite, so that a softmax over hidden keys stays finite


def soft_capped(x, soft_cap):
    """`soft_cap * tanh(x / soft_cap)`, or x where there is no cap. Source: arXiv:2408.00118, section 2."""
    return x if soft_cap is None else soft_cap * ops.tanh(x / soft_cap)


def linear(x, kernel):
    """`x @ kernel` in x's dtype: x float (..., i), kernel float (i, o), a tensor or a variable."""
    return ops.matmul(x, kernel)


def reshape(x, shape):
    """The numbers of x in another shape, a tuple of int, or of what `ops.shape` gives where a size is not known."""
    return ops.reshape(x, shape)


def rms_norm(x, scale, epsilon):
    """`x * rsqrt(mean(x ** 2) + epsilon) * (1 + scale)` over the last axis, in float32; returned in x's dtype."""
    x32 = ops.cast(x, "float32")
    variance = ops.mean(ops.square(x32), axis=-1, keepdims=True)
    return ops.cast(x32 * ops.rsqrt(variance + epsilon) * (1.0 + ops.cast(scale, "float32")), x.dtype)


def rotate(x, cos, sin):
    """Each head's two halves turned against each other, in x's dtype.

    Args:
        x: float (b, t, n, h). cos, sin: float (b, t, 1, h), those of `rotary_tables`.
    """
    first, second = ops.split(x, 2, axis=-1)
    return x * ops.cast(cos, x.dtype) + ops.concatenate([second, first], axis=-1) * ops.cast(sin, x.dtype)


def gated_gelu(gate, x):
    """`gelu(gate) * x` with the tanh approximation of GELU, elementwise."""
    return ops.gelu(gate, approximate=True) * x


def attention(queries, keys, values, visible, soft_cap=None):
    """Softmax attention with shared key-value heads.

    Args:
        queries: float (b, t, n, h), already scaled.
        keys, values: float (b, s, k, h); head j of n reads key-value head j // (n / k).
        visible: bool (b, t, s), True where a query sees a key; at least one key a query.
        soft_cap: of the scores, or None.

    Returns:
        float (b, t, n, h) in the dtype of queries; the softmax is float32.
    """
    # TensorFlow traces batch and length as unknown once `fit` has met a second shape: `ops.shape` then gives tensors
    # for them.
    time, slots = ops.shape(queries)[1], ops.shape(keys)[1]
    heads, head_dim, shared = queries.shape[2], queries.shape[3], keys.shape[2]
    group = heads // shared
    # The query heads of one key-value head become further query rows: keys and values are never repeated, and both
    # products are plain batched matrix products, which every backend runs at its best.
    rows = ops.reshape(
        ops.transpose(ops.reshape(queries, (-1, time, shared, group, head_dim)), (0, 2, 3, 1, 4)),
        (-1, shared, group * time, head_dim),
    )
    scores = ops.cast(ops.matmul(rows, ops.transpose(keys, (0, 2, 3, 1))), "float32")
    scores = ops.reshape(soft_capped(scores, soft_cap), (-1, shared, group, time, slots))
    weights = ops.softmax(ops.where(visible[:, None, None], scores, HIDDEN_SCORE), axis=-1)
    weights = ops.reshape(ops.cast(weights, queries.dtype), (-1, shared, group * time, slots))
    mixed = ops.reshape(ops.matmul(weights, ops.transpose(values, (0, 2, 1, 3))), (-1, shared, group, time, head_dim))
    return ops.reshape(ops.transpose(mixed, (0, 3, 1, 2, 4)), (-1, time, heads, head_dim))


def attention_mask(query_positions, query_segments, key_positions, key_segments, window: int | None = None):
    """True where a query may see a key.

    A key is visible when it lies in the query's segment, or in the one that this continues (`limits.BRANCHES`), not
    later than it and, in a local layer, less than `window` positions before it.
    Segment 0 is padding: padded queries see padded keys only, so no row is empty and no softmax divides by zero.

    Args:
        query_positions, query_segments: int (b, t).
        key_positions, key_segments: int (b, s).
        window: keys with `query position - key position >= window` are hidden; None for a global layer.

    Returns:
        bool (b, t, s).
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    own, keys = query_segments[:, :, None], key_segments[:, None, :]
    visible = ops.logical_and(distance >= 0, ops.logical_or(own == keys, own % BRANCHES == keys))
    if window is not None:
        visible = ops.logical_and(visible, distance < window)
    return visible


def causal_attention(queries, keys, values, tokens, soft_cap=None):
    """`attention` of the tokens of a row to each other, by their positions and segments; here with the whole mask.

    The native versions hold no (b, n, t, t) in memory, neither scores nor mask, in no pass. They rely on what holds
    where a row of tokens is read at once, without a cache: query and key at one place are the same token, and within a
    segment positions rise by one from place to place. So a key that a query sees is never at a later place, and in a
    local layer less than `window` places before, unless a branch lies between.

    Args:
        queries: float (b, t, n, h), already scaled.
        keys, values: float (b, t, k, h); head j of n reads key-value head j // (n / k).
        tokens: with `positions` and `segments`, int32 (b, t), 0 for the segment of padding, and `window`, int or None.
        soft_cap: of the scores, or None.

    Returns:
        float (b, t, n, h) in the dtype of queries; rows of padding hold no meaning.
    """
    at = (tokens.positions, tokens.segments)
    return attention(queries, keys, values, attention_mask(*at, *at, tokens.window), soft_cap)


def update_cache(cache, new, index):
    """A copy of cache (b, s, k, h) with new (b, t, k, h) at slots index .. index + t."""
    return ops.slice_update(cache, (0, index, 0, 0), ops.cast(new, cache.dtype))


def output_logits(hidden, matrix):
    """`hidden @ matrix.T` in float32, accumulated in float32: products of two half-precision numbers are exact there.

    Args:
        hidden: float (..., d). matrix: float (v, d), of the same dtype. The native versions never hold a float32 copy
            of a half-precision matrix.

    Returns:
        float32 (..., v), differentiable.
    """
    return ops.matmul(ops.cast(hidden, "float32"), ops.transpose(ops.cast(matrix, "float32")))


def softmax_log_probs(logits, target_ids, with_entropy=True):
    """Log-probability of each target and the entropy of `softmax(logits)`.

    Each logit is taken relative to the largest, and the target's is one of the summed ones: whatever the rounding, no
    log-probability is above 0.

    Args:
        logits: float32 (..., v). target_ids: int (...).
        with_entropy: False saves a pass over the logits.

    Returns:
        log_probs: float32 (...), differentiable. entropy: float32 (...) in nats, without gradient, or None.
    """
    largest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    shifted = logits - largest
    powers = ops.exp(shifted)
    mass = ops.sum(powers, axis=-1)
    chosen = ops.take_along_axis(logits, target_ids[..., None], axis=-1) - largest
    log_probs = chosen[..., 0] - ops.log(mass)
    if not with_entropy:
        return log_probs, None
    return log_probs, ops.stop_gradient(ops.log(mass) - ops.sum(powers * shifted, axis=-1) / mass)


def chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=True):
    """`softmax_log_probs` of `soft_capped(hidden @ matrix.T) / temperature`; here with all logits at once.

    Args:
        hidden: float (b, m, d). matrix: float (v, d). target_ids: int (b, m).
        chunk: time steps at once in the native versions, which keep one chunk of logits in memory.
        with_entropy: False saves a pass over the logits.

    Returns:
        log_probs: float32 (b, m), differentiable. entropy: float32 (b, m), without gradient, or None.
    """
    logits = soft_capped(output_logits(hidden, matrix), soft_cap) / temperature
    return softmax_log_probs(logits, target_ids, with_entropy)


def fit_arguments(arguments):
    """What Keras' `fit` gets for a dict of its arguments: just these."""
    return arguments


def weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk):
    """The log-probabilities of `chunked_log_probs`, and their sum times weights that are known before.

    Args:
        hidden: float (b, m, d). matrix: float (v, d). target_ids: int (b, m).
        weights: float32 (b, m), constants; 0 leaves a position out, whatever is there.
        chunk: as for `chunked_log_probs`. Each native chunk gives its share of the gradients at once, so that the
            logits are computed once and not again for the backward pass.

    Returns:
        total: float32 (), differentiable. log_probs: float32 (b, m), without gradient.
    """
    log_probs, _ = chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=False)
    return weighted_sum(log_probs, weights), ops.stop_gradient(log_probs)


def weighted_sum(log_probs, weights):
    """Sum of log_probs * weights, both float32 (b, m), over the weights that are not 0."""
    return ops.sum(ops.where(weights == 0, 0.0, log_probs * ops.stop_gradient(weights)))


def number_of_chunks(length: int, chunk: int) -> int:
    """How many chunks of `chunk` steps cover `length`."""
    return math.ceil(length / chunk)


def decoding_weights(steps: int):
    """A context for the products of one rollout, in which weights do not change: what is multiplied with at every token
    may be cast, or laid out for it, once. It may be entered again for further tokens of the same rollout.

    Args:
        steps: at most so many tokens a row, by which it is seen whether the work is worth it.
    """
    del steps
    return contextlib.nullcontext()


def while_loop(goes_on, body, state):
    """The tuple `state` after `body(*state)` has been applied to it for as long as `goes_on(*state)`, a bool ().

    A whole number in `state` may be a numpy scalar; in the functions it is whatever counts on that backend.
    """
    return ops.while_loop(goes_on, body, state)


def fast_updates(optimizer):
    """A context within which a Keras optimizer may update its variables by a faster program, to the same values."""
    return contextlib.nullcontext(optimizer)
