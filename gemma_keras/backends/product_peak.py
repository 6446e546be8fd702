"""What the machine multiplies at most, by the backend of this process, its threads and its device as they are set."""

import functools
import time

from keras import ops

from gemma_keras import backends

SIZE, LARGEST = 1024, 8192
ENOUGH = 0.005  # seconds a product must take: shorter ones measure how fast it is started, as on a GPU
REPEATS = 4


@functools.cache
def product_peak(dtype: str = "float32") -> float:
    """Operations a second of a product of square matrices, two for a multiplication with its addition; the best of
    four. Measured once a process: a fifth of a second on a CPU's core.

    Args:
        dtype: what a model computes in, "float32", "bfloat16" or "float16".
    """
    size, seconds = SIZE, best_of_products(SIZE, dtype, REPEATS)
    while seconds < ENOUGH and size < LARGEST:
        size *= 2
        seconds = best_of_products(size, dtype, REPEATS)
    return 2 * size**3 / seconds


def best_of_products(size: int, dtype: str, repeats: int) -> float:
    """Seconds of the fastest of `repeats` products of two (size, size) matrices."""
    matrix = ramp(size, size, dtype=dtype)
    return best_seconds(lambda: ops.matmul(matrix, matrix), repeats)


def best_seconds(product, repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls, after one that compiles. product: () → tensor (rows, columns)."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        # One number is fetched: an asynchronous backend has multiplied then.
        float(backends.to_host(ops.cast(product()[0, 0], "float32")))
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def ramp(*shape: int, dtype: str = "float32"):
    """A matrix of neither zeros nor one number: a processor's clock may depend on how many bits change."""
    values = ops.cast(ops.arange(shape[0] * shape[1]) % 1009, "float32") / 1009
    return ops.cast(ops.reshape(values, shape), dtype)
