"""The algorithms of policy optimization: a line each, the name of its file here. Nothing else knows their names."""

import importlib

from pipelines.stages.policy_optimization.methods.base import Method

FILES = (
    "rloo",
    "reinforce",
)


def _method(name: str) -> type[Method]:
    module = importlib.import_module(f"pipelines.stages.policy_optimization.methods.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__:
            return value
    raise ImportError(f"{module.__name__} defines no Method")


METHODS: dict[str, type[Method]] = {name: _method(name) for name in FILES}
"""Name in the workflow → algorithm; the first is the default."""
