"""Which prompts a stage sets aside to measure itself on: by content, and one draw for the whole chain."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from pipelines.data.contents import PromptHashes, SeenPrompts


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices of some examples, in two parts that share no prompt.

    Attributes:
        training: int (n,), rising.
        heldout: int (m,), those held out first in front: their first so many are the same at every fraction.
        seen_before: how many of the held-out ones an earlier stage was trained on; above 0 only where no example was
            new to it.
    """

    training: np.ndarray
    heldout: np.ndarray
    seen_before: int


def split_heldout(
    examples: Sequence[PromptHashes], fraction: float, seed: int, seen: SeenPrompts, most: int | None = None
) -> Split:
    """Hold out a share of the prompts, with all examples of each.

    Each prompt has a place between 0 and 1 that depends on its content and the seed alone, and the lowest places are
    held out. So stages that read the same prompts hold out the same ones, and of two fractions the prompts of the
    smaller are among those of the larger. Prompts that an earlier stage of the chain was trained on are passed over:
    nothing measured on them would be held out.

    Args:
        examples: hashes of the prompts of each example.
        fraction: share of the prompts (of their groups, see `PromptHashes`), in [0, 1); at least one where it is above
            0 and there are two or more. Fewer where too few are new.
        most: at most so many prompts; None for any number.
        seed: the workflow's.
        seen: what earlier stages of the chain were trained on.

    Returns:
        Split.
    """
    members: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(example.group, []).append(index)
    count = min(len(members) - 1, max(1, round(len(members) * fraction))) if fraction > 0 else 0
    count = count if most is None else min(count, most)
    order = sorted(members, key=lambda group: _place(seed, group))
    is_seen = [not seen.contents.isdisjoint(example.contents) for example in examples]
    new = [group for group in order if not any(is_seen[i] for i in members[group])]
    heldout = [i for group in (new or order)[:count] for i in members[group]]
    training = sorted(set(range(len(examples))).difference(heldout))
    return Split(np.array(training, np.int64), np.array(heldout, np.int64), int(sum(is_seen[i] for i in heldout)))


def _place(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed} held out {group}".encode()).digest()
