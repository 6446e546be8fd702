"""Pairs of answers for people to rate, and their ratings read back. Imports no Keras.

A pair is shown under a name that says nothing of who answered, in an order that a draw decided.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.hh_rlhf import Message
from pipelines.data.jsonl import read_jsonl
from pipelines.host.errors import DataError

EXPORT_FILE = "pairs_to_rate.jsonl"
CHOICES: Mapping[Any, int] = {"first": 1, "second": -1, "tie": 0}
"""What a rating may choose → its vote for the answer shown first."""


def row_to_rate(identifier: str, prompt: str | list[Message], first: str, second: str) -> dict[str, Any]:
    """What people are shown of a pair: `id`, `prompt`, `first`, `second`."""
    return {"id": identifier, "prompt": prompt, "first": first, "second": second}


def read_ratings(ratings: Path, known: Collection[str]) -> dict[str, int]:
    """What people prefer: 1 where most of a pair's ratings choose the answer shown first, -1 the second, 0 as many of
    each.

    Args:
        ratings: JSON lines `{"id": ..., "choice": "first" | "second" | "tie"}`. known: ids of the exported pairs.

    Returns:
        By id, of the pairs that somebody rated.

    Raises:
        DataError: file:line of a rating of an unknown pair or of an unknown choice.
    """
    votes: dict[str, int] = {}
    known = set(known)
    for row in read_jsonl(ratings):
        identifier, choice = row.values.get("id"), row.values.get("choice")
        if identifier not in known:
            raise DataError(
                f"{row.origin}: no pair has the id {identifier!r}. The model, prompts, seed and sampling options must "
                "be those of the export."
            )
        if choice not in CHOICES:
            raise DataError(f"{row.origin}: `choice` must be one of {', '.join(CHOICES)}. Received: {choice!r}")
        votes[identifier] = votes.get(identifier, 0) + CHOICES[choice]
    return {identifier: int(np.sign(vote)) for identifier, vote in votes.items()}
