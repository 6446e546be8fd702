"""What lm-eval found, as figures with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate

from pipelines.engines.lm_eval.model import GemmaKerasLM
from pipelines.engines.lm_eval.tasks import Tasks
from pipelines.host.errors import DataError
from pipelines.measures.intervals import score_interval, unskewed_t_interval

NO_FILTER = "none"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A benchmark of one model.

    Args:
        metric: the figure that counts, with lm-eval's filter where it has one. value: of it, over all rows alike.
        interval: 95 %, over rows; None where the figure is no mean over rows.
        rows: that were asked. others: metric → value. parts: task → the figure that counts, of several tasks.
        samples: of each row what was asked, answered, and found.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None
    rows: int
    others: dict[str, float]
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
    totals = {key: _aggregated(key, of_tasks, tasks) for key, of_tasks in values.items()}
    counted = _flat(values[metric])
    parts = {name: float(np.mean(one)) for name, one in values[metric].items()} if len(tasks) > 1 else {}
    return Measured(
        metric,
        totals.pop(metric),
        _interval(counted),
        len({(one["task"], one["doc_id"]) for one in samples}),
        {key: value for key, value in totals.items() if np.isfinite(value)},
        parts,
        samples,
    )


def _flat(of_tasks: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [value for values in of_tasks.values() for value in values]


def _aggregated(key: str, of_tasks: Mapping[str, Sequence[Any]], tasks: Tasks) -> float:
    """One figure of all rows, by the tasks' own rule: of a mean every row counts alike, whatever its task."""
    name = key.partition(",")[0]
    rule = next(iter(tasks.values())).aggregation().get(name, np.mean)
    return float(rule(_flat(of_tasks)))


def _interval(values: Sequence[Any]) -> tuple[float, float] | None:
    if not all(isinstance(value, (bool, int, float, np.number)) for value in values):
        return None
    numbers = np.array(values, np.float64)
    if ((numbers >= 0) & (numbers <= 1)).all():
        return score_interval(numbers)
    return unskewed_t_interval(numbers)
