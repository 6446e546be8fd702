"""What is known of a benchmark, and of a suite of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
Read = Callable[[Path, str], Mapping[str, Rows]]
"""From the set's folder, and the part of it that a task is about ("" of sets without parts), to its rows by split, with
the columns that the set has on the hub."""


TOXICITY = "toxicity"
"""Metric of benchmarks whose figure is a scorer's, behind which its name stands in brackets."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark, and how it is measured where nobody says otherwise.

    Args:
        tasks: lm-eval's, by name; several are parts of one set, whose rows count alike. part: of each task, what of the
            set it is about.
        folder: of lm-eval's tasks, where their files lie; "" where it has none.
        hub: the data set there. local: its folder in a folder of data. read: its rows there.
        tested: split whose rows are asked. pool: split of the examples before a question, "" where the task has its
            own or none; where there are none at hand, some tested rows are taken for it and not asked.
        metric: the figure that counts, with lm-eval's filter where it has several.
        shots: examples before a question, None as the task says. lower_is_better: of the metric.
        kind: "choice" is answered by the likeliest choice, "text" by words, "code" by a program.
        needs: packages beside lm-eval.
        about: what is asked.
    """

    tasks: Mapping[str, str]
    folder: str
    hub: str
    local: str
    read: Read
    about: str
    tested: str = "test"
    pool: str = "train"
    metric: str = "acc"
    shots: int | None = 0
    kind: str = "choice"
    lower_is_better: bool = False
    needs: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
    """A benchmark in a suite.

    Args:
        benchmark: its name. setting: as the source words it. published: percent, by model.
        shots, metric: where they are not the benchmark's own.
        note: what must be known before the two are compared.
    """

    benchmark: str
    setting: str
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shots: int | None = None
    metric: str | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Suite:
    """Benchmarks that were published together.

    Args:
        source: where. columns: models that figures are given of.
    """

    name: str
    source: str
    columns: Sequence[str]
    entries: Sequence[Entry]
