"""What lm-eval's configurations of our own tasks are made of."""

from collections.abc import Callable, Sequence
from typing import Any

from gemma_keras.random import generator
from pipelines.tasks.benchmarks.base import Rows


def metric(name: str, rule: str | Callable[..., float] = "mean", higher_is_better: bool = True) -> dict[str, Any]:
    """A figure, and the rule that makes it of all rows."""
    return {"metric": name, "aggregation": rule, "higher_is_better": higher_is_better}


def sampled(
    samples: int, results: Callable[..., dict[str, float]], metrics: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Of questions with so many free answers each: `results` gets the row and, as the first of a list, all of them."""
    return {
        "output_type": "generate_until",
        "process_results": results,
        "repeats": samples,
        "filter_list": [{"name": "none", "filter": [{"function": "take_first_k", "k": samples}]}],
        "metric_list": list(metrics),
    }


def with_examples(rows: Rows, count: int, seed: int, name: str) -> tuple[Rows, Rows]:
    """So many rows, drawn by the seed, as examples; and the others, without the like of any example."""
    drawn = generator(seed, "benchmark examples", name).permutation(len(rows))[:count]
    pool = [rows[i] for i in sorted(drawn.tolist())]
    return pool, [row for row in rows if row not in pool]
