"""Which rows of several sources each update sees.

The paper alters the mixture on the way, so that relevant data of high quality weighs more towards the end
(arXiv:2403.08295, pretraining data). A weight here is a share of the *rows* of an update: of packed rows of one length
in pretraining, which are tokens, and of examples in instruction tuning.

Each source is gone through in an order of its own, epoch after epoch, and goes on in a later phase where it was.
Sources take turns evenly, so that each has its share of any stretch of rows. Nothing has a state: all of it follows
from seed, stage and settings, as `batch_order.py` wants it.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.host.errors import DataError
from pipelines.schema.mixture import MixedOptions
from pipelines.training.batch_order import count_rows, count_updates, epochs_order


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several sources side by side.

    Attributes:
        names: of the sources.
        source_of: int (n,), the source of each row that is learned from. heldout_of: int (m,), of each held-out one.
        phases: the share of the updates at which each begins, the first 0, and the share of each source; these sum
            to 1.
    """

    names: tuple[str, ...]
    source_of: np.ndarray
    heldout_of: np.ndarray
    phases: tuple[tuple[float, tuple[float, ...]], ...]

    @classmethod
    def of(cls, config: MixedOptions, source_of: np.ndarray, heldout_of: np.ndarray) -> "Mixture | None":
        """What a stage asks for; None of one that has one data set.

        Raises:
            DataError: a source of which rows are wanted has none.
        """
        weighed = config.weights_by_phase
        if not weighed:
            return None
        names = tuple(weighed[0][1])
        for place, name in enumerate(names):
            if not np.any(source_of == place) and any(weights[name] for _, weights in weighed):
                raise DataError(
                    f"{name}:1: no row of this source is left to learn from: all are held out, too long or a bad row. "
                    "Give it more rows or weight 0, or lower heldout_fraction."
                )
        return cls(
            names,
            source_of,
            heldout_of,
            tuple(
                (start, tuple(weights[name] / sum(weights.values()) for name in names)) for start, weights in weighed
            ),
        )

    def starts(self, updates: int) -> list[int]:
        """The update that each phase begins with."""
        return [math.ceil(start * updates) for start, _ in self.phases]

    def order(self, seed: int, stage: str, config: MixedOptions) -> np.ndarray:
        """The rows in the order in which they are learned from: int (n,); as many as of one data set of that size."""
        examples, batch_size = len(self.source_of), config.batch_size
        updates, total = count_updates(examples, config), count_rows(examples, config)
        ends = [*(min(start * batch_size, total) for start in self.starts(updates)[1:]), total]
        counts = np.diff([0, *ends])
        turns = np.concatenate(
            [_turns(shares, count) for (_, shares), count in zip(self.phases, counts.tolist(), strict=True)]
        )
        order = np.empty(total, np.int64)
        for place, name in enumerate(self.names):
            rows = np.flatnonzero(self.source_of == place)
            wanted = int(np.sum(turns == place))
            if wanted:
                order[turns == place] = rows[epochs_order(seed, f"{stage}/{name}", len(rows), wanted)]
        return order

    def seen(self, order: np.ndarray, lengths: Sequence[int], config: MixedOptions, steps: int) -> list[dict[str, Any]]:
        """What of each source was learned from in each phase.

        Args:
            order: of `order`. lengths: tokens of each row. steps: updates that were done.

        Returns:
            A phase each, with `from` (share of the updates), `updates` that were done, and `sources`: `name`, `share`
            as asked for, `rows`, `tokens`, and `epochs`, which are passes over the source's rows.
        """
        batch_size, updates = config.batch_size, count_updates(len(self.source_of), config)
        sizes = np.bincount(self.source_of, minlength=len(self.names))
        tokens_of = np.asarray(lengths)
        found = []
        for (start, shares), (first, last) in zip(
            self.phases, itertools.pairwise([*self.starts(updates), updates]), strict=True
        ):
            last = max(first, min(last, steps))
            rows = order[first * batch_size : last * batch_size]
            parts = [rows[self.source_of[rows] == place] for place in range(len(self.names))]
            sources = [
                {
                    "name": name,
                    "share": share,
                    "rows": len(part),
                    "tokens": int(tokens_of[part].sum()),
                    "epochs": len(part) / int(size) if size else 0.0,
                }
                for name, share, part, size in zip(self.names, shares, parts, sizes, strict=True)
            ]
            found.append({"from": start, "updates": last - first, "sources": sources})
        return found


def concatenated(parts: Mapping[Any, Sequence[Any]]) -> tuple[list[Any], np.ndarray]:
    """The examples of all sources one after the other, and of each the number of its source: int (n,)."""
    source_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    return list(itertools.chain.from_iterable(parts.values())), source_of


def _turns(shares: Sequence[float], count: int) -> np.ndarray:
    """Whose turn it is, `count` times: int (count,).

    Turn j of a source of share s is due at (j + 1/2) / s, and turns are taken as they are due, the first source first.
    """
    due = [(np.arange(math.ceil(share * count) + 1) + 0.5) / share for share in shares if share > 0]
    places = [np.full(len(times), place) for times, place in zip(due, np.flatnonzero(shares), strict=True)]
    order = np.argsort(np.concatenate(due), kind="stable")
    return np.concatenate(places)[order][:count]
