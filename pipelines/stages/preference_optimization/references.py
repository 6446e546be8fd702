"""Pairs with what a policy is measured against: the log-probabilities of their answers under the reference, computed
once."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from gemma_keras.random import generator
from pipelines.data.encoding import EncodedPair
from pipelines.host.parts import Keep, compute_now
from pipelines.stages.preference_optimization.answer_batches import Answer, Item, longest, sides
from pipelines.stages.preference_optimization.scoring import AnswerScorer

_MOST_TRIES = 64
"""Pairs that are looked at for another prompt."""


@dataclasses.dataclass(frozen=True)
class Referenced:
    """Items of s answers, in the order of the data.

    Attributes:
        items: n of them. log_probs: float32 (n, s), of whole answers under the reference; zeros where there is none.
        mismatched: of each item its prompt with an answer to another one, where a loss asks for them.
    """

    items: list[Item]
    log_probs: np.ndarray
    mismatched: "Referenced | None" = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest answer of each item, with its prompt: int (n,)."""
        return np.array([longest([item]) for item in self.items])


def referenced(
    pairs: Sequence[EncodedPair],
    scorer: AnswerScorer | None,
    micro_batch_size: int,
    max_length: int,
    key: tuple[int, str, str] | None = None,
    parts: Callable[[str], Keep] = lambda work: compute_now,
) -> Referenced:
    """Pairs under a reference.

    Args:
        pairs: one at least. scorer: of the reference, or None without one.
        micro_batch_size: pairs of a forward pass. max_length: tokens of an answer with its prompt.
        key: of the draw of mismatched answers; None for none.
        parts: what keeps the parts of some work, by its name.
    """

    def of(work: str, items: list[Item], rows: int, others: Referenced | None = None) -> Referenced:
        if scorer is None:
            return Referenced(items, np.zeros((len(items), len(items[0])), np.float32), others)
        return Referenced(items, scorer.of_items(items, rows, max_length, parts(work)), others)

    items = list(map(sides, pairs))
    if key is None:
        return of("own", items, micro_batch_size)
    others = of("mismatched", mismatched(items, max_length, key), 2 * micro_batch_size)
    return of("own", items, micro_batch_size, others)


def mismatched(items: Sequence[Item], max_length: int, key: tuple[int, str, str]) -> list[Item]:
    """The prompt of each pair with an answer to another prompt, a chosen and a rejected one in turns.

    Args:
        max_length: longer ones are cut at the end of the answer. key: who gets whose follows from it.

    Returns:
        Items of one answer. Where 64 pairs in a row have one prompt, the answer may be one to that.
    """
    order = generator(*key, "mismatched").permutation(len(items)).tolist()
    prompts = [tuple(item[0].token_ids[: -item[0].length]) for item in items]
    found: dict[int, Item] = {}
    for place, row in enumerate(order):
        candidates = [order[(place + step) % len(order)] for step in range(1, 1 + min(_MOST_TRIES, len(order)))]
        other = next((i for i in candidates if prompts[i] != prompts[row]), candidates[0])
        answer = items[other][place % 2]
        ids = [*prompts[row], *answer.token_ids[-answer.length :]][:max_length]
        found[row] = (Answer(ids, len(ids) - len(prompts[row])),)
    return [found[row] for row in range(len(items))]
