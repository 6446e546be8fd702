"""Runs the source of a user's reward functions: in the process of a stage, nowhere else."""

import hashlib
import importlib
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.host.errors import ConfigError
from pipelines.plugins.sources import UserFunction

_ALONE = (
    " The file is read alone, since its digest stands in the stage's key; what it imports must be an installed package."
)


def load(function: UserFunction) -> Callable[..., Any]:
    """The function itself.

    A file is run once a process, from the bytes whose digest was taken: Python's own cache of compiled files could hold
    older ones.

    Raises:
        ConfigError: the source changed since the run began, fails where it is imported, or defines no such function.
    """
    try:
        source = Path(function.file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{function.file}: the reward {function.name!r} cannot be read ({error.strerror})") from error
    if hashlib.sha256(source).hexdigest() != function.digest:
        raise ConfigError(
            f"{function.file}: changed since the run began, and the reward {function.name!r} stands in it; run again"
        )
    if function.entry_point is None:
        found = getattr(_module(function, source), function.name, None)
    else:
        module, _, attributes = function.entry_point.partition(":")
        found = _imported(function, module)
        for attribute in filter(None, attributes.split(".")):
            found = getattr(found, attribute, None)
    if not callable(found):
        raise ConfigError(f"{function.origin}: the reward {function.name!r} is no function; got {found!r:.100}")
    return found


def _module(function: UserFunction, source: bytes) -> types.ModuleType:
    which = hashlib.sha256(f"{function.file}\0{function.digest}".encode()).hexdigest()
    name = f"gemma_keras_plugin_{Path(function.file).stem}_{which}"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__file__ = function.file
        sys.modules[name] = module  # where dataclasses and pickles look for it
        try:
            exec(compile(source, function.file, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise _failed(function, error) from error
    return sys.modules[name]


def _imported(function: UserFunction, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(function, error) from error


def _failed(function: UserFunction, error: BaseException) -> ConfigError:
    hint = _ALONE if isinstance(error, ImportError) and function.entry_point is None else ""
    return ConfigError(
        f"{place_of(error, function)}: the file of the reward {function.name!r} cannot be imported: "
        f"{type(error).__name__}: {error}.{hint}"
    )


def place_of(error: BaseException, function: UserFunction) -> str:
    """`file:line` in the function's source that raised an error; where it is defined, if none of its lines did."""
    source = Path(function.file)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).resolve() == source]
    return f"{function.file}:{frames[-1].lineno}" if frames else function.origin
