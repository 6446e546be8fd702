"""The algorithms of policy optimization: a line each, the name of its file here. Nothing else knows their names."""

import importlib

from pipelines.host.registry import class_in
from pipelines.stages.policy_optimization.methods.base import Method

FILES = (
    "rloo",
    "reinforce",
)


METHODS: dict[str, type[Method]] = {
    name: class_in(
        importlib.import_module(f"pipelines.stages.policy_optimization.methods.{name}"),
        Method,  # type: ignore[type-abstract]
    )
    for name in FILES
}
"""Name in the workflow → algorithm; the first is the default."""
