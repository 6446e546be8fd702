"""The weights at the lowest held-out loss, and when to stop looking for a lower one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.training.state_files import Snapshot
from pipelines.training.variables import assign, sources_of


class BestWeights:
    """Looks at each held-out loss of a training.

    Args:
        variables: what is trained, by name.
        keeps: whether the weights at the lowest loss are kept, on the host; else only the loss and its step.
        patience: measurements in a row without a lower loss after which training ends; None for never.

    Attributes:
        loss, step: the lowest loss, and after which update; None before any.
    """

    def __init__(self, variables: Mapping[str, Any], keeps: bool, patience: int | None) -> None:
        self._variables, self._keeps, self._patience = dict(variables), keeps, patience
        self._arrays: dict[str, np.ndarray] = {}
        self._without = 0
        self.loss: float | None = None
        self.step: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether training should end."""
        return self._patience is not None and self._without >= self._patience

    def look(self, step: int, loss: float) -> None:
        """Take a held-out loss into account. One that is not lower, or NaN, counts against going on."""
        if self.loss is not None and not loss < self.loss:
            self._without += 1
            return
        self.loss, self.step, self._without = loss, step, 0
        if self._keeps:
            self._arrays = {name: source.read() for name, source in sources_of(self._variables).items()}

    def put_back(self, step: int) -> bool:
        """Give the variables the kept weights, where they are not those of the last update `step`. Says whether."""
        if not self._arrays or self.step == step:
            return False
        assign(self._variables, self._arrays)
        return True

    def snapshot(self) -> Snapshot:
        """For the state of a stage."""
        return Snapshot(self._arrays, {"loss": self.loss, "step": self.step, "without": self._without})

    def restore(self, saved: Snapshot) -> None:
        """Take back what `snapshot` gave."""
        self._arrays = dict(saved.arrays)
        self.loss, self.step = saved.record["loss"], saved.record["step"]
        self._without = saved.record["without"]
