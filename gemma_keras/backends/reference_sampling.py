"""The draw of a token in plain `keras.ops`: readable, and what the native ones are tested against."""

from keras import ops

BLOCK = 512


def draw_tokens(logits, uniforms, temperature, top_k, top_p):
    """One token a row, by inverse transform of a uniform number.

    Args:
        logits: float32 (b, v).
        uniforms: float32 (b,) in [0, 1); unused at temperature 0.
        temperature: float >= 0; 0 takes the first of the most likely tokens.
        top_k: keep the k most likely tokens and those that tie with the k-th, or None.
        top_p: of these, keep the smallest set of most likely tokens whose probability reaches it, or None.

    Returns:
        token_ids: int32 (b,). log_probs: float32 (b,), of these tokens under the whole distribution at the temperature,
        whatever top_k and top_p cut off; at temperature 0, which has no distribution, at temperature 1.
    """
    logits = logits / (temperature or 1.0)
    shifted = logits - ops.max(logits, axis=-1, keepdims=True)
    weights = ops.exp(shifted)
    log_mass = ops.log(ops.sum(weights, axis=-1))
    if temperature == 0:
        token_ids = ops.cast(ops.argmax(logits, axis=-1), "int32")
    else:
        if top_k is not None and top_k < logits.shape[-1]:
            weights = ops.where(logits >= least_of_top_k(logits, top_k), weights, 0.0)
        if top_p is not None and top_p < 1:
            weights = _keep_top_p(weights, top_p)
        token_ids = inverse_transform(weights, uniforms)
    return token_ids, ops.take_along_axis(shifted, token_ids[:, None], axis=-1)[:, 0] - log_mass


def least_of_top_k(x, k):
    """The k-th largest number of each row of x (b, n), (b, 1)."""
    # Not the last column: XLA knows a sort of which the first k are taken and selects instead, but not where it is cut
    # further. That made it a hundred times as slow.
    return ops.min(ops.top_k(x, k)[0], axis=-1, keepdims=True)


def inverse_transform(weights, uniforms):
    """The token where the running sum of weights passes `uniform * total`.

    Sums run in two levels, blocks then tokens: a flat running sum over 256k float32 numbers is slow on JAX and inexact
    on TensorFlow. The result always has positive weight, also where rounding makes a running sum end below its total.

    Args:
        weights: float32 (b, v) >= 0, not all zero.
        uniforms: float32 (b,) in [0, 1).

    Returns:
        int32 (b,).
    """
    blocks = in_blocks(weights, 0.0)
    mass = ops.sum(blocks, axis=-1)
    block_index, rest = locate(mass, uniforms * ops.sum(mass, axis=-1))
    token_index, _ = locate(take_block(blocks, block_index), rest)
    return block_index * blocks.shape[2] + token_index


def in_blocks(x, filling):
    """x (b, v) as (b, blocks, min(v, 512)), filled up at the end."""
    size = x.shape[-1]
    block = min(BLOCK, size)
    count = -(-size // block)
    if count * block > size:
        x = ops.pad(x, ((0, 0), (0, count * block - size)), constant_values=filling)
    return ops.reshape(x, (-1, count, block))


def take_block(blocks, index):
    """(b, block), of each row of blocks (b, count, block) the one at index, int (b,)."""
    return ops.take_along_axis(blocks, index[:, None, None], axis=1)[:, 0]


def locate(weights, point):
    """Index, int32 (b,), of the cell of weights (b, n) >= 0 that holds `point` (b,), and how far into that cell it
    lies."""
    ends = ops.cumsum(weights, axis=-1)
    index = ops.sum(ops.cast(ends <= point[:, None], "int32"), axis=-1)
    cells = ops.arange(weights.shape[-1], dtype="int32")
    last_positive = ops.max(ops.where(weights > 0, cells, 0), axis=-1)
    index = ops.minimum(index, last_positive)
    starts = ops.take_along_axis(ends - weights, index[:, None], axis=1)[:, 0]
    return index, ops.maximum(point - starts, 0)


def _keep_top_p(weights, top_p):
    """Zero all but the smallest set of largest weights that holds `top_p` of the total; by bisection, never a sort of
    the vocabulary."""
    needed = top_p * ops.sum(weights, axis=-1, keepdims=True)
    low = ops.zeros_like(needed)
    high = ops.max(weights, axis=-1, keepdims=True)
    # `low` always keeps enough mass, `high` too little or just the maximum; 40 halvings end far below float32 spacing.
    for _ in range(40):
        middle = 0.5 * (low + high)
        enough = ops.sum(ops.where(weights >= middle, weights, 0.0), axis=-1, keepdims=True) >= needed
        low, high = ops.where(enough, middle, low), ops.where(enough, high, middle)
    return ops.where(weights >= low, weights, 0.0)
