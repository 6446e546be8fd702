"""The variables that training changes, by name: what of them a saved state holds, and how they get it back."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it
import numpy as np

from gemma_keras import backends
from pipelines.training.state_files import Source


def changing_variables(model: Any, optimizer: Any) -> dict[str, Any]:
    """A model's trainable variables as `weights/...`, and its optimizer's as `optimizer/...`.

    Raises:
        RuntimeError: two have one name.
    """
    # Keras numbers optimizers through, so their own part of a path says nothing.
    of_optimizer = _by_name((variable.path.partition("/")[2], variable) for variable in optimizer.variables)
    return {
        **{f"weights/{name}": variable for name, variable in trained_variables(model).items()},
        **{f"optimizer/{name}": variable for name, variable in of_optimizer.items()},
    }


def trained_variables(model: Any) -> dict[str, Any]:
    """A model's trainable variables by their paths.

    Raises:
        RuntimeError: two have one.
    """
    return _by_name((variable.path, variable) for variable in model.trainable_variables)


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, variable in pairs:
        if name in found:
            raise RuntimeError(f"Two variables are called {name!r}, so that a saved state could not tell them apart.")
        found[name] = variable
    return found


def sources_of(variables: Mapping[str, Any]) -> dict[str, Source]:
    """How each is read."""
    return {name: _source(variable) for name, variable in variables.items()}


def assign(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give each variable the array of its name.

    Raises:
        ValueError: one is missing or of another shape; none has changed then.
    """
    for name, variable in variables.items():
        expected, found = tuple(variable.shape), arrays.get(name)
        if found is None or tuple(found.shape) != expected:
            got = None if found is None else tuple(found.shape)
            raise ValueError(f"The saved state is of another model: {name}: expected shape {expected}, got {got}.")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _source(variable: Any) -> Source:
    # A copy: on a CPU what a backend gives can be its own memory, which the next update writes to.
    return Source(
        tuple(variable.shape),
        np.dtype(keras.backend.standardize_dtype(variable.dtype)),
        lambda: np.array(backends.to_host(variable.value), copy=True),
    )
