"""The losses of preference optimization: a line each, the name of its file here. Nothing else knows their names."""

import importlib

from pipelines.host.registry import class_in
from pipelines.stages.preference_optimization.losses.base import PairLoss

FILES = (
    "dpo",
    "ipo",
    "robust",
    "simpo",
    "orpo",
    "kto",
    "cpo",
)

LOSSES: dict[str, type[PairLoss]] = {
    name: class_in(
        importlib.import_module(f"pipelines.stages.preference_optimization.losses.{name}"),
        PairLoss,  # type: ignore[type-abstract]
    )
    for name in FILES
}
"""Name in the workflow → loss; the first is the default."""
