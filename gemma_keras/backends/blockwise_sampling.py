"""The draw of a token from a large vocabulary, for XLA on CPUs: no sort, and no array as large as the logits.

`reference_sampling.py` has the same draw, readable. What is different:

1. It runs row by row: what is as large as a row stays in the processor's cache.
2. The most likely token is sought in the block with the largest maximum: XLA's own search runs number by number.
3. The k largest logits lie in the k blocks with the largest maxima.
4. `top_p` adds up the mass of equal logits by two histograms, of the upper and of the lower half of their bits, in
   place of 40 passes. Masses are whole numbers there, parts of 2 ** 31: their sums are exact, each part by a half.
"""

from keras import ops

from gemma_keras.backends import reference_sampling
from gemma_keras.backends.reference_sampling import in_blocks, least_of_top_k, locate, take_block

REFERENCE_UP_TO = 8192  # tokens; the reference is as fast there
_BINS = 2**16
_PARTS = 2.1e9  # below 2 ** 31 by more than rounding adds


def draw_tokens(logits, uniforms, temperature, top_k, top_p):
    """As `reference_sampling.draw_tokens`."""
    if logits.shape[-1] > REFERENCE_UP_TO:

        def row(given):
            logits, uniforms = given
            token_ids, log_probs = _draw(logits[None], uniforms[None], temperature, top_k, top_p)
            return token_ids[0], log_probs[0]

        return ops.map(row, (logits, uniforms))
    if temperature == 0:
        return _draw(logits, uniforms, temperature, top_k, top_p)
    return reference_sampling.draw_tokens(logits, uniforms, temperature, top_k, top_p)


def _draw(logits, uniforms, temperature, top_k, top_p):
    """As `draw_tokens`; with `top_p` for logits (1, v)."""
    blocks = in_blocks(logits / (temperature or 1.0), -float("inf"))
    block_tops = ops.max(blocks, axis=-1)
    top = ops.max(block_tops, axis=-1, keepdims=True)
    weights = ops.exp(blocks - top[..., None])
    masses = kept_masses = ops.sum(weights, axis=-1)
    if temperature == 0:
        block_index = ops.cast(ops.argmax(block_tops, axis=-1), "int32")
        chosen = take_block(blocks, block_index)
        index = ops.cast(ops.argmax(chosen, axis=-1), "int32")
    else:
        least = -float("inf")  # of the logits that are kept
        if top_k is not None and top_k < logits.shape[-1]:
            least = _least_of_top_k(blocks, block_tops, top_k)
            weights = ops.where(blocks >= least[..., None], weights, 0.0)
            kept_masses = ops.sum(weights, axis=-1)
        if top_p is not None and top_p < 1:
            least = _least_of_top_p(blocks, weights, ops.sum(kept_masses), top_p)
            kept_masses = ops.sum(ops.where(blocks >= least, weights, 0.0), axis=-1)
        block_index, rest = locate(kept_masses, uniforms * ops.sum(kept_masses, axis=-1))
        chosen = take_block(blocks, block_index)
        index, _ = locate(ops.where(chosen >= least, take_block(weights, block_index), 0.0), rest)
    of_chosen = ops.take_along_axis(chosen, index[:, None], axis=-1) - top
    return block_index * blocks.shape[2] + index, of_chosen[:, 0] - ops.log(ops.sum(masses, axis=-1))


def _least_of_top_k(blocks, block_tops, top_k):
    """The k-th largest logit of each row, (b, 1)."""
    count, block = blocks.shape[1:]
    if top_k < count:
        # At least k logits lie in the k blocks with the largest maxima, and none outside is above the least of these.
        _, index = ops.top_k(block_tops, top_k)
        blocks, count = ops.take_along_axis(blocks, ops.cast(index, "int32")[..., None], axis=1), top_k
    return least_of_top_k(ops.reshape(blocks, (-1, count * block)), top_k)


def _least_of_top_p(logits, weights, total, top_p):
    """The smallest logit, (), of the smallest set that holds `top_p` of all weights, which add up to `total`."""
    keys = _ordered(ops.view(ops.reshape(logits, (-1,)), "int32"))
    parts = ops.cast(ops.reshape(weights, (-1,)) * (_PARTS / total) + 0.5, "int32")
    upper = ops.right_shift(keys, 16) + _BINS // 2
    in_bins = ops.segment_sum(parts, upper, _BINS)
    # What may be cut off from below; `locate` leaves the most likely token where that is all.
    spare = ops.cast((1.0 - top_p) * ops.cast(ops.sum(in_bins), "float32"), "int32")
    upper_bin, spare = _locate_bin(in_bins, spare)
    lower = ops.where(upper == upper_bin, ops.bitwise_and(keys, _BINS - 1), -1)  # -1 is in no bin
    lower_bin, _ = _locate_bin(ops.segment_sum(parts, lower, _BINS), spare)
    key = ops.bitwise_or(ops.left_shift(upper_bin - _BINS // 2, 16), lower_bin)
    return ops.view(_ordered(key)[None], "float32")[0]


def _ordered(bits):
    """int32 in the order of the floats with these bits; of these again the bits."""
    return ops.bitwise_xor(bits, ops.bitwise_and(ops.right_shift(bits, 31), 2**31 - 1))


def _locate_bin(masses, point):
    """As `locate`, of one row of 2 ** 16 cells, in two levels."""
    blocks = ops.reshape(masses, (1, 256, 256))
    block_index, rest = locate(ops.sum(blocks, axis=-1), point[None])
    index, rest = locate(take_block(blocks, block_index), rest)
    return (block_index * 256 + index)[0], rest[0]
