"""Weights that lie in a file, read one at a time, when they are asked for."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.safetensors_file import float_dtype

_BLOCK = 1 << 22
Reader = Callable[[np.dtype | None], np.ndarray]


class StoredWeights:
    """The weights of a model, checked against its configuration, none of them in memory.

    Args:
        origin: file, folder or model, for messages.
        readers: our name → function from a dtype (None: the file's) to the array in our layout, perhaps a transposed
            view.
        dtype: of the arrays unless another is asked for: "float32", "bfloat16" or "float16"; default the file's.

    Iterate it for (our name, array) in the file's order; every iteration reads anew.
    """

    def __init__(self, origin: str, readers: Mapping[str, Reader], dtype: str | None = None):
        self.origin = origin
        self._readers = readers
        self._dtype = None if dtype is None else float_dtype(dtype)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in self._readers:
            yield name, self.read(name)

    def replaced(self, readers: Mapping[str, Reader]) -> "StoredWeights":
        """These weights with others in place of some, or beside them."""
        other = StoredWeights(self.origin, {**self._readers, **readers})
        other._dtype = self._dtype
        return other

    def read(self, name: str, dtype: str | None = None) -> np.ndarray:
        """One weight, cast on the way.

        Raises:
            CheckpointError: there is none of that name, its bytes cannot be read, or a value is NaN or infinite.
        """
        if name not in self._readers:
            raise CheckpointError(f"{self.origin}: weight {name!r} is missing.")
        found = self._readers[name](self._dtype if dtype is None else float_dtype(dtype))
        if not is_finite(found):
            raise CheckpointError(
                f"{self.origin}: weight {name!r} has values that are NaN or infinite. What it was saved by had failed "
                "before: save or download it again."
            )
        return found


def is_finite(array: np.ndarray) -> bool:
    """Whether all values are, without a second array of that size."""
    if not array.size:
        return True
    if array.dtype.itemsize > 2:  # a NaN is in both ends
        return bool(np.isfinite(array.min()) and np.isfinite(array.max()))
    bits = np.uint16(0x7C00 if array.dtype == np.float16 else 0x7F80)  # of the exponent, all set where it is neither
    raw = array.view(np.uint16).reshape(len(array), -1) if array.ndim else array.view(np.uint16).reshape(1, 1)
    rows = max(1, _BLOCK // max(1, raw.shape[1]))
    return not any(((raw[i : i + rows] & bits) == bits).any() for i in range(0, len(raw), rows))
