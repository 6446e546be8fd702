"""From the names in a workflow to what is measured."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.host.spelling import did_you_mean
from pipelines.tasks.benchmarks import BENCHMARKS, SUITES
from pipelines.tasks.benchmarks.base import Benchmark, Entry

HARNESS_PREFIX = "lm_eval:"
"""Before the name of any task of lm-eval's, which is asked of the hub."""
_FOLDERS = ("", "evaluation/")
"""Of a folder of data, in which its sets lie."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """One benchmark that is to be measured.

    Args:
        name: what it is called. benchmark: what is known of it; None of a task of lm-eval's that is not.
        entry: of the suite that it stands in; with nothing published where it was named alone.
        suite: its name, or None.
        own: of questions that are no benchmark of lm-eval's, what makes its configuration of them, from a seed and the
            name; or None.
    """

    name: str
    benchmark: Benchmark | None
    entry: Entry
    suite: str | None = None
    own: Callable[..., dict[str, Any]] | None = None

    def with_shots(self, shots: int) -> "Chosen":
        """The same behind another number of examples."""
        return dataclasses.replace(self, entry=dataclasses.replace(self.entry, shots=shots))

    @property
    def shots(self) -> int | None:
        """Examples before a question; None as the task says."""
        if self.entry.shots is not None or self.benchmark is None:
            return self.entry.shots
        return self.benchmark.shots

    @property
    def metric(self) -> str | None:
        """The figure that counts; None for the task's first."""
        return self.entry.metric or (self.benchmark.metric if self.benchmark else None)


def choose(names: Iterable[str]) -> list[Chosen]:
    """The benchmarks that names of suites, benchmarks and tasks of lm-eval's stand for, each once.

    Raises:
        ValueError: an unknown name.
    """
    found: dict[str, Chosen] = {}
    for name in names:
        if name in SUITES:
            of_name = [Chosen(one.benchmark, BENCHMARKS[one.benchmark], one, name) for one in SUITES[name].entries]
        elif name.startswith(HARNESS_PREFIX):
            of_name = [Chosen(name.removeprefix(HARNESS_PREFIX), None, Entry(name, ""))]
        elif name in BENCHMARKS:
            of_name = [Chosen(name, BENCHMARKS[name], Entry(name, ""))]
        else:
            known = [*SUITES, *BENCHMARKS]
            raise ValueError(
                f"no suite or benchmark {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}; any other task "
                f"of lm-eval's as {HARNESS_PREFIX}NAME"
            )
        for one in of_name:
            found.setdefault(one.name, one)
    return list(found.values())


def places(benchmark: Benchmark) -> list[str]:
    """Where in a folder of data the rows of a benchmark may lie."""
    return [f"{folder}{benchmark.local}" for folder in _FOLDERS]


def set_folders(data: Path | None, benchmark: Benchmark) -> list[Path]:
    """Where they lie; nowhere where they are to come from the hub."""
    return [] if data is None else [data / place for place in places(benchmark) if (data / place).exists()]


def published(chosen: Iterable[Chosen]) -> list[str]:
    """The models whose figures stand beside, in the order of their suites."""
    columns: Mapping[str, None] = {
        column: None for one in chosen if one.suite is not None for column in SUITES[one.suite].columns
    }
    return list(columns)
