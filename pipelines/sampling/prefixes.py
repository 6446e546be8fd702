"""What all rows of a group begin with, read once into a cache: examples before each question of a benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma_keras import backends
from gemma_keras.inputs.padding import padded

LEAST_PREFIX = 64  # tokens; a shorter one is read again sooner than its cache is copied
LEAST_SHARE = 0.25  # of all tokens that a group's prefix must save
CACHE_SHARE = 4  # a batch's cache holds at most so many times its tokens


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many ids all of these sequences begin with alike."""
    ordered = sorted(map(tuple, sequences))  # what the first and the last of them share, all share
    return next(
        (i for i, (a, b) in enumerate(zip(ordered[0], ordered[-1], strict=False)) if a != b), min(map(len, ordered))
    )


def prefix_length(sequences: Sequence[Sequence[int]], tokens: int, most: int | None = None) -> int:
    """How many ids of a group's sequences are read once, for 0 where that is not worth a cache; each keeps one of its
    own.

    Args:
        tokens: all that the group reads without a prefix. most: no more than so many.
    """
    length = min(common_length(sequences), min(map(len, sequences)) - 1)
    length = length if most is None else min(length, most)
    saved = length * (len(sequences) - 1)
    return length if length >= LEAST_PREFIX and saved >= LEAST_SHARE * tokens else 0


def prefix_arrays(prefix: Sequence[int], width: int, pad_token_id: int) -> dict[str, np.ndarray]:
    """A prefix as a row of its own, padded on the left: token_ids, positions, segment_ids int32 and padding_mask bool,
    all (1, p)."""
    token_ids, real = padded([prefix], pad_token_id, width, side="left")
    return {
        "token_ids": token_ids,
        "positions": np.where(real, np.cumsum(real, axis=1, dtype=np.int32) - 1, 0).astype(np.int32),
        "segment_ids": real.astype(np.int32),
        "padding_mask": real,
    }


class PrefixReader:
    """Keys and values of a prefix, each layer's (1, p, k, h); those of the last one are kept.

    Args:
        model: GemmaCausalLM.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._read = backends.compile_forward(self._cache, [model], "prefix")
        self._prefix: tuple[int, ...] | None = None
        self._kept: Any = None

    def __call__(self, prefix: Sequence[int], width: int) -> Any:
        """The cache of a prefix, padded on the left to p = `width`."""
        if self._prefix != tuple(prefix):
            self._kept = self._read(prefix_arrays(prefix, width, self._model.config.pad_token_id))
            self._prefix = tuple(prefix)
        return self._kept

    def _cache(self, inputs: Any) -> Any:
        backbone = self._model.backbone
        _, cache = backbone(inputs, cache=backbone.empty_cache(1, inputs["token_ids"].shape[1]), cache_index=0)
        return cache
