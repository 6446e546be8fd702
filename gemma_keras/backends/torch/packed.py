"""Weights as a rollout reads them, on PyTorch: cast once, and on a CPU laid out for oneDNN's products of few rows."""

import contextvars
import functools

import keras
import torch

from gemma_keras.backends.torch import half_logits
from gemma_keras.backends.torch.products import is_from_intel, multiplies, onednn_product

# Of a float32 product on Intel's processors: with fewer its time is that of reading the matrix. MKL, which multiplies
# what is not packed, needs half as long again on others.
LEAST_ROWS = 4
# Of a rollout. Laying a matrix out takes what its next fifty products gain on an Intel processor, and its next four to
# fifteen on one of AMD.
LEAST_STEPS = 32
_CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

_CURRENT: contextvars.ContextVar = contextvars.ContextVar("decoding_weights", default=None)


class DecodingWeights:
    """As `reference.decoding_weights`.

    A matrix that is multiplied with a second time is worth a copy: the first time may be the prompts' alone. The copies
    go with this object. A weight that was written to between two entries is copied anew.
    """

    def __init__(self, steps: int):
        self._packs = steps >= LEAST_STEPS
        self._held: dict[tuple[type, int], _Weight] = {}
        self._tokens: list[contextvars.Token] = []

    def __enter__(self):
        self._held = {key: held for key, held in self._held.items() if held.is_fresh()}
        self._tokens.append(_CURRENT.set(self))
        return self

    def __exit__(self, *error):
        _CURRENT.reset(self._tokens.pop())

    def product(self, x, weight, is_transposed):
        """`x @ weight`, or with its transpose; x float (..., i)."""
        return self._of(_Matrix, weight, is_transposed).product(x, self._packs)

    def norm_factor(self, scale, times):
        """`(1 + scale) * times`, float32."""
        return self._of(_Factor, scale, times).tensor

    def float32_logits(self, x, matrix):
        """`x @ matrix.T` in float32, or None where that is not worth laying the matrix out; both in half precision."""
        is_worth_it = self._packs and x.numel() <= half_logits.MOST_ROWS * x.shape[-1] and half_logits.is_possible()
        return self._of(_Logits, matrix).product(x) if is_worth_it else None

    def _of(self, kind, weight, *settings):
        key = (kind, id(weight))
        if key not in self._held:
            self._held[key] = kind(weight, *settings)
        return self._held[key]


class _Weight:
    """One weight: held, so that nothing else gets its id, and with the number of times it had been written to."""

    def __init__(self, weight):
        self._weight = weight
        self._written = _stored(weight)
        self._version = self._written._version

    def is_fresh(self):
        return _stored(self._weight) is self._written and self._written._version == self._version


class _Factor(_Weight):
    def __init__(self, scale, times):
        super().__init__(scale)
        self.tensor = _norm_factor(scale, times)


class _Logits(_Weight):
    def __init__(self, matrix):
        super().__init__(matrix)
        self._packed = None
        self._was_read = False

    def product(self, x):
        if not self._was_read:
            self._was_read = True
            return None
        if self._packed is None:
            self._packed = half_logits.HalfLogits(self._weight)
        return self._packed.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], len(self._weight))


class _Matrix(_Weight):
    def __init__(self, weight, is_transposed):
        super().__init__(weight)
        self._is_transposed = is_transposed
        self._matrix = keras.ops.convert_to_tensor(weight)  # here Keras casts a variable
        self._is_packed = self._was_read = False

    def product(self, x, packs):
        if packs and self._was_read and not self._is_packed and _is_worth_packing(x, self._matrix):
            outputs_first = self._matrix if self._is_transposed else self._matrix.t()
            self._matrix = _pack(outputs_first, x.numel() // x.shape[-1])
            self._is_packed = True
        self._was_read = True
        if self._is_packed:
            return onednn_product(x, self._matrix)
        return x @ (self._matrix.t() if self._is_transposed else self._matrix)


def linear(x, kernel):
    """As `reference.linear`."""
    # Factors of adapters come as tensors, which are cast where they are used and new each time.
    weights = _weights_of(kernel, keras.Variable)
    if weights is None:
        return x @ keras.ops.convert_to_tensor(kernel)
    return weights.product(x, kernel, is_transposed=False)


def transposed_product(x, matrix):
    """`x @ matrix.T` of two tensors; prepared where the matrix is a variable's own."""
    # A cast copy, which is no parameter, would be another one at every entry.
    weights = _weights_of(matrix, torch.nn.Parameter)
    return x @ matrix.t() if weights is None else weights.product(x, matrix, is_transposed=True)


def float32_logits(x, matrix):
    """`x @ matrix.T` in float32 of tensors in half precision, where the matrix is prepared for that; else None."""
    weights = _weights_of(matrix, torch.nn.Parameter)
    return None if weights is None or matrix.device.type != "cpu" else weights.float32_logits(x, matrix)


def _weights_of(weight, kind):
    """What holds copies of this weight, or None outside of a rollout and for what is not of that kind or may change."""
    weights = _CURRENT.get()
    return weights if weights is not None and isinstance(weight, kind) and _is_constant(_stored(weight)) else None


def norm_factor(scale, times=1.0):
    """What a norm multiplies with, `(1 + scale) * times`, float32; prepared where the scale is a variable."""
    weights = _weights_of(scale, keras.Variable)
    return _norm_factor(scale, times) if weights is None else weights.norm_factor(scale, times)


def _norm_factor(scale, times):
    return (1.0 + keras.ops.convert_to_tensor(scale).float()) * times


def _stored(weight):
    """The tensor that is written to: a variable's own, and not what `value` makes of it under a dtype policy."""
    return weight._value if isinstance(weight, keras.Variable) else weight


def _is_constant(tensor):
    # What was made under `torch.inference_mode` does not count how often it is written to.
    return not torch.is_grad_enabled() and not tensor.is_inference()


def _is_worth_packing(x, matrix):
    if matrix.device.type != "cpu" or x.dtype != matrix.dtype or matrix.dtype not in _CLOSE:
        return False
    least = LEAST_ROWS if matrix.dtype == torch.float32 and is_from_intel() else 1
    return x.numel() >= least * x.shape[-1] and _can_pack(matrix.dtype)


@functools.cache
def _can_pack(dtype):
    """Whether this torch, on this processor, has the private operators and they multiply."""
    return multiplies(lambda x, matrix: onednn_product(x, _pack(matrix, 5)), dtype, dtype, _CLOSE[dtype])


def _pack(matrix, rows):
    """A matrix (o, i) in the order in which products with so many rows read it; opaque."""
    return torch.ops.mkldnn._reorder_linear_weight(matrix, rows)
