"""Intervals of figures that are no mean, such as a ratio of sums or a difference of shares."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gemma_keras.random import generator
from pipelines.measures.intervals import Interval, t_quantile

GROUPS = 20


def jackknife_interval(
    rule: Callable[[Sequence[Any]], float], rows: Sequence[Any], level: float = 0.95
) -> Interval | None:
    """Interval of `rule(rows)` by the delete-a-group jackknife: the rows are dealt at random into 20 groups, and how
    far the figure moves without each of them says how far it spreads.

    Args:
        rule: a smooth function of rows, whose order does not matter.

    Returns:
        (low, high), symmetric about the figure; None with fewer than three rows, and where the figure or one without a
        group is not finite.

    Source: Kott 2001, The Delete-a-Group Jackknife, Journal of Official Statistics 17(4).
    """
    groups = min(GROUPS, len(rows))
    if groups < 3:
        return None
    group_of = generator(0, "jackknife", len(rows)).permutation(len(rows)) % groups
    value = float(rule(rows))
    kept = ([row for row, one in zip(rows, group_of, strict=True) if one != left] for left in range(groups))
    without = [float(rule(part)) for part in kept]
    if not all(map(math.isfinite, (value, *without))):
        return None
    error = math.sqrt((groups - 1) / groups * float(np.sum((np.array(without) - np.mean(without)) ** 2)))
    reach = t_quantile((1 + level) / 2, groups - 1) * error
    return value - reach, value + reach
