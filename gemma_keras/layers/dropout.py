"""Dropout whose mask follows from one key a row, the same numbers on every backend and in every batch."""

from keras import ops

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - (1 << 32))  # as signed 32-bit numbers


def mixed_bits(x):
    """A bijection of int32 whose output bits all depend on all input bits; products wrap around.

    Source: the constants that Wellons' search found to have the least bias, https://nullprogram.com/blog/2018/07/31/.
    """
    x = ops.bitwise_xor(x, _logical_shift(x, 16)) * _MULTIPLIERS[0]
    x = ops.bitwise_xor(x, _logical_shift(x, 15)) * _MULTIPLIERS[1]
    return ops.bitwise_xor(x, _logical_shift(x, 16))


def _logical_shift(x, bits):
    # Signed numbers shift their sign in from the left; unsigned ones do not exist on every backend.
    return ops.bitwise_and(ops.right_shift(x, bits), (1 << (32 - bits)) - 1)


def dropout(x, rate: float, keys, salt: int):
    """Zero a share of x and scale the rest up, so that the mean stays.

    The mask has no random state: a row draws by its key whatever the batch around it, so accumulation, resuming and
    recomputation (rematerialisation) meet the same mask again.

    Args:
        x: float (b, t, d).
        rate: share of zeros, in [0, 1).
        keys: int32 (b,), one a row and step.
        salt: int, which of a model's dropouts this is.
    """
    time, width = ops.shape(x)[1], x.shape[2]
    row = mixed_bits(ops.bitwise_xor(mixed_bits(ops.cast(keys, "int32")), salt))
    cell = ops.reshape(ops.arange(time * width, dtype="int32"), (1, time, width))
    draws = ops.bitwise_and(mixed_bits(row[:, None, None] + cell * 0x3C6EF35F), 0x7FFFFFFF)
    return ops.where(draws >= int(rate * 2**31), x / ops.cast(1.0 - rate, x.dtype), ops.zeros_like(x))
