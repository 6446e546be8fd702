"""Gates between stages: what a figure of an earlier stage must be before a later one starts."""

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Gate:
    """One condition.

    Args:
        stage: an earlier one. figure: path in its `final.json`.
        comparison: of `COMPARISONS`. limit: what the figure is compared with.
    """

    stage: str
    figure: tuple[str, ...]
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.comparison} {self.limit:g}"

    def is_met(self, value: float) -> bool:
        """Whether a figure passes; NaN does not."""
        return COMPARISONS[self.comparison](value, self.limit)

    def find(self, final: Mapping[str, Any]) -> float | None:
        """The figure in a stage's final figures; None where there is no such number."""
        found: Any = final
        for key in self.figure:
            found = found.get(key) if isinstance(found, Mapping) else None
        try:
            return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
        except OverflowError:  # an integer that no float holds
            return None


def gate(name: str, condition: str) -> Gate:
    """A gate as a workflow says it, such as `reward.accuracy` and `>= 0.6`.

    Raises:
        ValueError: what is wrong.
    """
    stage, *figure = name.split(".")
    if not figure or not all((stage, *figure)):
        raise ValueError(f"{name!r} names no figure; expected STAGE.FIGURE, e.g. reward.accuracy")
    found = re.fullmatch(r"\s*(>=|<=|>|<)\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*", condition)
    if found is None:
        raise ValueError(
            f"{condition!r} is no condition; expected one of {', '.join(COMPARISONS)} and a number: '>= 0.6'"
        )
    return Gate(stage, tuple(figure), found[1], float(found[2]))
