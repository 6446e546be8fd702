"""The algorithms of policy optimization: a line each, the name of its file here. Nothing else knows their names."""

import importlib

from pipelines.host.registry import class_in
from pipelines.schema.named import Named, named
from pipelines.stages.policy_optimization.methods.base import Method

FILES = (
    "rloo",
    "reinforce",
    "grpo",
    "ppo",
)


METHODS: dict[str, type[Method]] = {
    name: class_in(
        importlib.import_module(f"pipelines.stages.policy_optimization.methods.{name}"),
        Method,  # type: ignore[type-abstract]
    )
    for name in FILES
}
"""Name in the workflow → algorithm; the first is the default."""

OPTIONS: dict[str, type[Named]] = {name: named(name, method.Options) for name, method in METHODS.items()}
"""Name in the workflow → what the algorithm alone is asked for."""


def method_of(options: Named) -> Method:
    """The algorithm that a workflow asks for, with its options."""
    return METHODS[options.name](options)
