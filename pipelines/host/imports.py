"""What is kept from being imported into a process of ours.

Keras imports matplotlib wherever it is installed, for galleries of images: a sixth of its import time and 24 MB in
every process. Only the report draws, in the process of the runner, whose stages run in others.
"""

import contextlib
import sys
from collections.abc import Iterator

FIGURES = "matplotlib"


@contextlib.contextmanager
def without(package: str) -> Iterator[None]:
    """Within, importing `package` raises ModuleNotFoundError, as if it were not installed; afterwards it is as before.

    For a process that is ours alone, around the import of a library that does without. A package that has been
    imported already stays.

    Args:
        package: a top-level name.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how the import system is told of a missing module
    try:
        yield
    finally:
        del sys.modules[package]
