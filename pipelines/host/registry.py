"""What a registry of names finds behind a name: the one class that a module of ours defines."""

from types import ModuleType
from typing import TypeVar

Base = TypeVar("Base")


def class_in(module: ModuleType, base: type[Base]) -> type[Base]:
    """The class that `module` itself defines of a kind.

    Raises:
        ImportError: there is none; a mistake of ours.
    """
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
            return value
    raise ImportError(f"{module.__name__} defines no {base.__name__}")
