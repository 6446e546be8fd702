"""How fast a stage works: real tokens a second of wall clock, and the share of the machine's product peak that the
operations are which they need."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from pipelines.measures.model_flops import model_flops_utilization

TRAINING, SAMPLING = "training", "sampling"


@dataclasses.dataclass
class _Sum:
    """Work added up: `flops` None where nobody counts operations; `dtype` in which they are computed."""

    tokens: int = 0
    seconds: float = 0.0
    flops: float | None = None
    dtype: str = "float32"

    def add(self, tokens: int, seconds: float, flops: float | None, dtype: str) -> None:
        self.tokens += tokens
        self.seconds += seconds
        if flops is not None:
            self.flops = flops + (self.flops or 0.0)
        self.dtype = dtype


class Throughput:
    """Adds up what a stage does, kind of work by kind of work.

    Args:
        measure_peak: dtype → operations a second of the machine's products, see `gemma_keras/backends/product_peak.py`;
            None for no shares. It is asked once there is something to compare.

    Attributes:
        seconds_to_first_update: from here, when all is imported, until the first update of the weights has been made,
            compilation included; None where none was.
    """

    def __init__(self, measure_peak: Callable[[str], float] | None = None) -> None:
        self._measure_peak = measure_peak
        self._started = time.perf_counter()
        self._stage: dict[str, _Sum] = {}
        self._row: dict[str, _Sum] = {}
        self.seconds_to_first_update: float | None = None

    def count(
        self,
        work: str,
        tokens: int,
        seconds: float,
        flops: float | None = None,
        dtype: str = "float32",
        has_compiled: bool = False,
    ) -> None:
        """Add some work.

        Args:
            work: `TRAINING` or `SAMPLING`. tokens: real ones, trained or sampled. seconds: of wall clock.
            flops: operations that were needed. dtype: that the model computes in.
            has_compiled: a program met new shapes, so that this time says nothing of the next: the stage's figures are
                without it.
        """
        if work == TRAINING and self.seconds_to_first_update is None:
            self.seconds_to_first_update = round(time.perf_counter() - self._started, 3)
        self._row.setdefault(work, _Sum()).add(tokens, seconds, flops, dtype)
        if not has_compiled:
            self._stage.setdefault(work, _Sum()).add(tokens, seconds, flops, dtype)

    def row(self, work: str) -> dict[str, float]:
        """What goes into a row of metrics, about the work since the last one: `tokens_per_second` and
        `model_flops_utilization`, of sampling with `sampling/` before them; {} without work."""
        prefix = "" if work == TRAINING else f"{work}/"
        done = self._row.pop(work, None)
        return {} if done is None else {prefix + name: value for name, value in self._figures(done).items()}

    def figures(self) -> dict[str, Any]:
        """Of the whole stage: `training` and `sampling`, each with the same two without the calls that compiled, and
        `seconds_to_first_update`; what there was none of is left out."""
        found: dict[str, Any] = {work: self._figures(done) for work, done in self._stage.items()}
        if self.seconds_to_first_update is not None:
            found["seconds_to_first_update"] = self.seconds_to_first_update
        return found

    def tokens_per_second(self, work: str) -> float | None:
        """Of the whole stage, without the calls that compiled; None where all did."""
        done = self._stage.get(work)
        return done.tokens / done.seconds if done and done.seconds else None

    def _figures(self, done: _Sum) -> dict[str, float]:
        if not done.seconds:
            return {}
        found = {"tokens_per_second": done.tokens / done.seconds}
        if self._measure_peak is not None and done.flops is not None:
            found["model_flops_utilization"] = model_flops_utilization(
                done.flops, done.seconds, self._measure_peak(done.dtype)
            )
        return found
