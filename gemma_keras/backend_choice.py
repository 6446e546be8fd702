"""Chooses the Keras backend before Keras is imported.

Order: a name given by the caller (the workflow file), `KERAS_BACKEND`, the user's Keras configuration file, else the
one backend that is installed. Keras itself would fall back to TensorFlow and fail where only JAX is installed.
"""

import importlib.util
import json
import os
import pathlib
import sys

from gemma_keras.install_advice import install_command

BACKENDS = ("jax", "tensorflow", "torch")


class BackendError(ValueError):
    """An unknown backend, or one that is not installed.

    Attributes:
        alternatives: names of the backends that are installed in place of the one asked for.
    """

    def __init__(self, message: str, alternatives: tuple[str, ...] = ()):
        super().__init__(message)
        self.alternatives = alternatives


def installed_backends() -> tuple[str, ...]:
    """Names of the installed backends, in Keras' own order of preference; nothing is imported."""
    return tuple(name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name) is not None)


def choose_backend(requested: str | None = None) -> str:
    """The backend that this process should use.

    Args:
        requested: the workflow's choice, or None.

    Raises:
        BackendError: the name is unknown, the package is missing, or no backend is installed.
    """
    source, name = "requested", requested
    if name is None:
        source, name = "KERAS_BACKEND", os.environ.get("KERAS_BACKEND") or None
    if name is None:
        source, name = _configuration_file()
    installed = installed_backends()
    if name is None:
        if not installed:
            raise BackendError(
                f"No backend is installed: expected jax, tensorflow or torch. Run: {install_command('jax')}"
            )
        return installed[0]
    if name not in BACKENDS:
        raise BackendError(f"Unknown backend {name!r} ({source}): expected one of {', '.join(BACKENDS)}")
    if name not in installed:
        others = f", or choose one that is installed: {' or '.join(installed)}" if installed else ""
        raise BackendError(
            f"Backend {name!r} ({source}) is not installed. Run: {install_command(name)}{others}", installed
        )
    return name


def set_backend(requested: str | None = None) -> str:
    """Set `KERAS_BACKEND` for this process and return the name; once Keras is imported its backend stays.

    Raises:
        BackendError: as `choose_backend`, or Keras already runs on another backend than `requested`.
    """
    if "keras" in sys.modules and "keras.src.backend" in sys.modules:
        current = sys.modules["keras.src.backend"].backend()
        if requested is not None and requested != current:
            raise BackendError(f"Keras already runs on {current!r}; {requested!r} must be chosen before it is imported")
        return current
    name = choose_backend(requested)
    os.environ["KERAS_BACKEND"] = name
    return name


def float_type() -> str:
    """Keras' default float type, as its configuration file has it; Keras is not imported."""
    _, found = _configuration()
    return str(found.get("floatx") or "float32")


def _configuration_file() -> tuple[str, str | None]:
    path, found = _configuration()
    value = found.get("backend")
    # Keras writes its own default into this file at first import, also where that backend is missing: such a file
    # decides nothing.
    if value not in installed_backends():
        value = None
    return str(path), value


def _configuration() -> tuple[pathlib.Path, dict]:
    """Keras' configuration file, and what it says."""
    # As Keras has it: where a user has no home, "~" stands as it is.
    home = pathlib.Path(os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras"))
    path = home / "keras.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    return path, found if isinstance(found, dict) else {}
