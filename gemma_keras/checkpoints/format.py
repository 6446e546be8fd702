"""What every file format offers, and a model as it lies in a file. Nothing here, or in a format's file, imports Keras
at its top."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from gemma_keras.checkpoints.weights import StoredWeights
from gemma_keras.config import GemmaConfig
from gemma_keras.text.tokenizer import GemmaTokenizer

FLOAT_DTYPES = ("float32", "bfloat16", "float16")

NamedArrays = Iterable[tuple[str, np.ndarray]]
"""(our name, array in our layout), every weight once, "score" for a reward model; one is held at a time."""


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model that has been opened and checked; its weights are still on disk.

    Args:
        config: its sizes.
        weights: to be read one at a time; None where they were not asked for.
        tokenizer: None where the source has none.
        dtype: of the stored weights, one of `FLOAT_DTYPES`; "float32" where they are quantized.
        reward: {"reward_mean", "reward_std"} of a reward model, None for a language model.
        adapter: folder of the PEFT adapter that named this model as its base, and is not in its weights; else None.
    """

    config: GemmaConfig
    weights: NamedArrays | StoredWeights | None
    tokenizer: GemmaTokenizer | None
    dtype: str = "float32"
    reward: Mapping[str, float] | None = None
    adapter: Path | None = None


class Format(Protocol):
    """A file format.

    Attributes:
        description: what it is to a user, such as "a .gguf file".
        suffix: of the one file that it is; None where it is a folder.
        dtypes: what `write` can store.
        needs_keras: True where opening and writing build a Keras model, so that a backend must have been chosen.
    """

    description: str
    suffix: str | None
    dtypes: tuple[str, ...]
    needs_keras: bool

    def recognizes(self, source: str | Path) -> bool:
        """True where a path, or a handle such as `kaggle://...`, is of this format; reads as little as it can."""

    def open(self, source: str | Path, dtype: str | None = None, with_weights: bool = True) -> StoredModel:
        """Open a source that it recognizes.

        Args:
            dtype: what the weights may be rounded to while they are read, one of `FLOAT_DTYPES`; default as stored.
            with_weights: False leaves them out, and does not look for them.

        Raises:
            CheckpointError: a damaged or foreign model.
        """

    def write(self, target: Path, model: StoredModel, dtype: str | None = None) -> str:
        """Write a model, tensor by tensor.

        Args:
            target: the file, or an empty folder.
            dtype: one of `dtypes`; default near what the model is stored in.

        Returns:
            The dtype written.

        Raises:
            CheckpointError: the format has no such model. InputError: what the user has to mend first.
        """
