"""The head's float32 products on a CPU: by oneDNN where MKL, which torch takes, is slow.

On processors that are not Intel's, MKL takes 1.15 to 1.5 times as long for some hundred rows and a matrix as large as
the embedding.
"""

import functools
import pathlib

import torch

LEAST = 1 << 24
"""Multiplications; of fewer, what stands around a product takes as long as could be gained."""


@functools.cache
def is_from_intel() -> bool:
    """Whether Intel made the processor; by its name and not by a clock, so that a run repeats to the bit."""
    known = pathlib.Path("/proc/cpuinfo")
    return not known.exists() or "GenuineIntel" in known.read_text(errors="replace")


def is_for_onednn(x, matrix) -> bool:
    """Whether `product(x, matrix)` would be oneDNN's: a large one, on a processor where that gains."""
    if x.device.type != "cpu" or not x.dtype == matrix.dtype == torch.float32:
        return False
    if x.numel() * matrix.shape[0] < LEAST or is_from_intel():
        return False
    return not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu") and _can_multiply()


def product(x, matrix):
    """`x @ matrix.T` without gradients: x (..., i), matrix (o, i)."""
    return onednn_product(x, matrix) if is_for_onednn(x, matrix) else x @ matrix.t()


def onednn_product(x, matrix):
    """The same by oneDNN: float32 or bfloat16, of a matrix as it is or as `_reorder_linear_weight` laid it out."""
    return torch.ops.mkldnn._linear_pointwise(x, matrix, None, "none", [], "")


def multiplies(transposed_product, dtype, result_dtype, close: float) -> bool:
    """Whether `transposed_product(x, matrix)` is `x @ matrix.T` to that share of the largest number: private operators
    are in no promise of torch, nor in all builds."""
    random = torch.Generator().manual_seed(0)
    x, matrix = (torch.randn(rows, 48, generator=random).to(dtype) for rows in (5, 40))
    try:
        found = transposed_product(x, matrix)
    except (AttributeError, RuntimeError):
        return False
    expected = x.double() @ matrix.double().t()
    return found.dtype == result_dtype and bool(((found - expected).abs() <= close * expected.abs().max()).all())


@functools.cache
def _can_multiply() -> bool:
    return multiplies(onednn_product, torch.float32, torch.float32, 4e-7)
