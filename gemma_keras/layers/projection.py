"""The one kind of linear map in Gemma: two-dimensional kernel, no bias, low-rank adapters beside it."""

import dataclasses
import zlib

import keras
import numpy as np
from keras import ops

from gemma_keras import backends
from gemma_keras.initializers import FirstWeights, KeyedNormal
from gemma_keras.layers.dropout import dropout
from gemma_keras.lora_options import LoraOptions

_UNIT_VECTORS = 1024


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One low-rank path of one projection.

    Args:
        a: variable (inputs, r). b: variable (r, outputs); both float32.
        scale: of the product.
        dropout: share of the inputs that training sets to zero.
        salt: int, makes the dropout of every path its own.
    """

    a: keras.Variable
    b: keras.Variable
    scale: float
    dropout: float
    salt: int


class Projection(keras.layers.Dense):
    """`x @ kernel`, plus `scale * (x @ a) @ b` while an adapter is active.

    A two-dimensional kernel is what LoRA, quantization and torch want: `EinsumDense` with a three-dimensional one
    copies it at every forward pass on torch. Keras' own LoRA adds `a @ b` to the kernel in every forward pass; here no
    forward pass touches the kernel.

    Args:
        inputs, outputs: sizes.
        full_name: e.g. "layers.0.q_proj".
        weights: the initial ones; random ones have std 1 / sqrt(inputs).

    Call: float (..., inputs) → float (..., outputs). With `dropout_keys` int32 (b,), one a row, the active adapter
    drops inputs.

    Source: adapters arXiv:2106.09685, section 4.1.
    """

    def __init__(self, inputs: int, outputs: int, full_name: str, weights: FirstWeights, dtype=None):
        initializer = weights.initializer(full_name, inputs**-0.5)
        super().__init__(
            outputs, use_bias=False, kernel_initializer=initializer, dtype=dtype, name=full_name.rsplit(".", 1)[-1]
        )
        self.inputs = inputs
        self.full_name = full_name
        self.active: Adapter | None = None
        self.is_merged = False
        self.build((None, inputs))
        self.kernel_initializer = (
            keras.initializers.Zeros()
        )  # Dense would hold on to the checkpoint, or to another library's model

    def call(self, x, dropout_keys=None):
        # `Dense.kernel` looks for quantized kernels first, on torch for as long as a small product takes.
        return self._adapted(backends.linear(x, self._kernel), x, dropout_keys)

    def quantized_call(self, x, dropout_keys=None):
        return self._adapted(super().quantized_call(x), x, dropout_keys)

    def _adapted(self, y, x, dropout_keys):
        adapter = self.active
        if adapter is None:
            return y
        if dropout_keys is not None and adapter.dropout > 0:
            x = dropout(x, adapter.dropout, dropout_keys, adapter.salt)
        low_rank = backends.linear(backends.linear(x, ops.cast(adapter.a, x.dtype)), ops.cast(adapter.b, x.dtype))
        return y + ops.cast(low_rank, y.dtype) * ops.cast(adapter.scale, y.dtype)

    def add_adapter(self, name: str, options: LoraOptions, seed: int) -> None:
        """Give this projection a path, inactive; `a` random, `b` zero."""
        initializer = KeyedNormal(seed, f"{self.full_name}.lora_a", (3 * self.inputs) ** -0.5)
        self._tracker.unlock()  # as Dense.enable_lora does: Keras lets no built layer gain weights otherwise
        a = self.add_weight(
            name=f"lora_a_{name}",
            shape=(self.inputs, options.rank),
            initializer=initializer,
            dtype="float32",
            autocast=False,
        )
        b = self.add_weight(
            name=f"lora_b_{name}",
            shape=(options.rank, self.units),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        salt = zlib.crc32(f"{self.full_name}/{name}".encode()) - 2**31
        # An attribute of its own, because deleting it is how Keras forgets a weight.
        setattr(self, f"lora_a_{name}", a)
        setattr(self, f"lora_b_{name}", b)
        setattr(self, f"adapter_{name}", Adapter(a, b, options.scale, options.dropout, salt))
        self._tracker.lock()

    def activate(self, name: str | None) -> tuple[keras.Variable, ...]:
        """Let one adapter, or none, take part in the forward pass; returns its weights, () where this projection has
        none of that name."""
        self.active = None if name is None else self.adapter(name)
        return () if self.active is None else (self.active.a, self.active.b)

    def adapter(self, name: str) -> Adapter | None:
        """The path called `name`, or None."""
        return getattr(self, f"adapter_{name}", None)

    def __delattr__(self, name: str) -> None:
        """As Keras', without its search through all objects of the process for garbage after every single weight.

        Removing an adapter or quantizing deletes hundreds: in a large process that took minutes. Whoever deletes many
        collects once, when all of them are gone.
        """
        value = getattr(self, name)
        if isinstance(value, keras.Variable):
            self._untrack_variable(value)
        super(keras.layers.Layer, self).__delattr__(name)

    def remove_adapter(self, name: str) -> None:
        """Forget a path and its weights."""
        if self.adapter(name) is None:
            return
        self._tracker.unlock()
        for attribute in ("adapter", "lora_a", "lora_b"):
            delattr(self, f"{attribute}_{name}")
        self._tracker.lock()

    def effective_kernel(self) -> np.ndarray:
        """What this projection multiplies with, the active adapter included: (inputs, outputs), on the host.

        In the kernel's dtype where it is just that; float32 for a quantized kernel and for a sum, which bfloat16 would
        round away.
        """
        kernel = self._dequantized_kernel()
        if self.active is None:
            return kernel
        a, b = (np.asarray(ops.convert_to_numpy(v), np.float32) for v in (self.active.a, self.active.b))
        return kernel.astype(np.float32) + np.float32(self.active.scale) * (a @ b)

    def _dequantized_kernel(self) -> np.ndarray:
        if self.quantization_mode is None:
            return np.array(ops.convert_to_numpy(self.kernel))
        # However scales, zeros and groups are laid out, the products of the unit vectors are the kernel's rows.
        kernel = np.empty((self.inputs, self.units), np.float32)
        for start in range(0, self.inputs, _UNIT_VECTORS):
            count = min(_UNIT_VECTORS, self.inputs - start)
            rows = super().quantized_call(ops.convert_to_tensor(np.eye(count, self.inputs, start, dtype=np.float32)))
            kernel[start : start + count] = ops.convert_to_numpy(rows)
        return kernel

    def save_own_variables(self, store) -> None:
        """For Keras' own files: the kernel, and both factors of every adapter under their names."""
        self._refuse_keras_files()
        store["0"] = self.kernel
        for attribute, variable in self._factors().items():
            store[attribute] = variable

    def load_own_variables(self, store) -> None:
        """The kernel, and the adapters that both this projection and the file have."""
        self._refuse_keras_files()
        factors, stored = self._factors(), set(store.keys())
        if "0" not in stored or stored - set(factors) - {"0"}:
            # Keras asks a second time, without the file's part, and shows that error.
            raise ValueError(
                f"{self.full_name}: the file lacks its kernel, or has adapters that this model has not: call "
                "enable_lora with their names and options first"
            )
        self.kernel.assign(store["0"])
        for attribute in stored - {"0"}:
            factors[attribute].assign(store[attribute])

    def _factors(self) -> dict[str, keras.Variable]:
        attributes = [name for name in vars(self) if name.startswith(("lora_a_", "lora_b_"))]
        return {attribute: getattr(self, attribute) for attribute in attributes}

    def _refuse_keras_files(self) -> None:
        if self.is_merged:
            raise ValueError("An adapter is merged: unmerge_adapter() first, or save_to_preset, which writes the sum")
        if self.quantization_mode is not None:
            raise ValueError(
                "Keras' files do not hold quantized kernels of Gemma. Use save_to_preset and quantize again, or "
                "save_adapter"
            )

    def quantize(self, mode, type_check=True, config=None):
        super().quantize(
            mode, type_check=False, config=config
        )  # Keras refuses subclasses, this one keeps Dense's layout
