"""What lm-eval found, as figures with intervals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate

from pipelines.engines.lm_eval.model import GemmaKerasLM
from pipelines.engines.lm_eval.tasks import Tasks
from pipelines.host.errors import DataError
from pipelines.measures.intervals import Interval, score_interval, unskewed_t_interval
from pipelines.measures.jackknife import jackknife_interval

NO_FILTER = "none"
Rule = Callable[[Sequence[Any]], float]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A benchmark of one model.

    Args:
        metric: the figure that counts, with lm-eval's filter where it has one. value: of it, over all rows alike.
        interval: 95 %, over rows; None where the figure is no mean over rows.
        rows: that were asked. others: metric → value. parts: task → the figure that counts, of several tasks.
        other_intervals: metric → 95 % of it; None where it has none.
        samples: of each row what was asked, answered, and found.
    """

    metric: str
    value: float
    interval: Interval | None
    rows: int
    others: dict[str, float]
    other_intervals: dict[str, Interval | None]
    parts: dict[str, float]
    samples: list[dict[str, Any]]


def measure(model: GemmaKerasLM, tasks: Tasks, metric: str | None, with_turns: bool) -> Measured:
    """Ask a model all that some tasks ask.

    Args:
        metric: the figure that counts, None for the tasks' first.
        with_turns: ask in turns, examples in turns of their own.

    Raises:
        DataError: the tasks give no such figure.
    """
    found = evaluate(
        model,
        {"tasks": tasks},
        bootstrap_iters=0,
        apply_chat_template=with_turns,
        fewshot_as_multiturn=with_turns,
    )
    samples = [{"task": name, **one} for name in tasks for one in found["samples"][name]]
    values: dict[str, dict[str, list[Any]]] = {}
    for one in samples:
        for name in one["metrics"]:
            key = name if one["filter"] == NO_FILTER else f"{name},{one['filter']}"
            values.setdefault(key, {}).setdefault(one["task"], []).append(one[name])
    metric = metric or next(iter(values))
    if metric not in values:
        raise DataError(f"{next(iter(tasks))}:1: no figure {metric!r}; the task gives {', '.join(values)}")
    rules = {key: _rule(key, tasks) for key in values}
    flat = {key: _flat(of_tasks) for key, of_tasks in values.items()}
    totals = {key: float(rules[key](flat[key])) for key in values}
    others = {key: value for key, value in totals.items() if key != metric and np.isfinite(value)}
    parts = {name: float(np.mean(one)) for name, one in values[metric].items()} if len(tasks) > 1 else {}
    return Measured(
        metric,
        totals[metric],
        _interval(flat[metric], rules[metric]),
        len({(one["task"], one["doc_id"]) for one in samples}),
        others,
        {key: _interval(flat[key], rules[key]) for key in others},
        parts,
        samples,
    )


def _flat(of_tasks: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [value for values in of_tasks.values() for value in values]


def _rule(key: str, tasks: Tasks) -> Rule:
    """What makes one figure of all rows, the tasks' own: of a mean every row counts alike, whatever its task."""
    found: Rule = next(iter(tasks.values())).aggregation().get(key.partition(",")[0], np.mean)
    return found


def _interval(values: Sequence[Any], rule: Rule) -> Interval | None:
    """Of a mean, or of whatever the rule makes of rows that are more than a number."""
    if not all(isinstance(value, (bool, int, float, np.number)) for value in values):
        return jackknife_interval(rule, values)
    numbers = np.array(values, np.float64)
    if ((numbers >= 0) & (numbers <= 1)).all():
        return score_interval(numbers)
    return unskewed_t_interval(numbers)
