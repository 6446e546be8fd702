"""The filters: a line each, the name of its file here. Nothing else knows their names."""

import importlib
from collections.abc import Sequence
from typing import Any

from pipelines.host.registry import class_in
from pipelines.schema.base import Use
from pipelines.schema.named import Named, named
from pipelines.stages.data_filtering.filters.base import Filter

FILES = (
    "quality",
    "language",
    "personal_data",
    "toxicity",
    "self_identification",
    "duplicates",
    "decontaminate",
)

FILTERS: dict[str, type[Filter]] = {
    name: class_in(
        importlib.import_module(f"pipelines.stages.data_filtering.filters.{name}"),
        Filter,  # type: ignore[type-abstract]
    )
    for name in FILES
}
"""Name in the workflow → filter."""

OPTIONS: dict[str, type[Named]] = {name: named(name, one.Options) for name, one in FILTERS.items()}
"""Name in the workflow → what the filter alone is asked for."""


def copied(options: Sequence[Any], use: Use, read: Sequence[Any]) -> list[Filter]:
    """Filters as they are in another process.

    Args:
        options: of each, as plain JSON. read: of each, what its `open` has read.
    """
    names = [one if isinstance(one, str) else one["name"] for one in options]
    found = filters_of([OPTIONS[name].model_validate(one) for name, one in zip(names, options, strict=True)], use)
    for one, of_one in zip(found, read, strict=True):
        one.read = of_one
    return found


def filters_of(options: Sequence[Named], use: Use) -> list[Filter]:
    """The filters that a workflow asks for, in its order."""
    return [FILTERS[one.name](one, use) for one in options]
