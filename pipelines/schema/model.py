"""The workflow's model: a name, or the sizes of one with random weights."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pydantic
from pydantic import Discriminator, Field, Tag

from gemma_keras.config import GemmaConfig
from pipelines.schema.base import Problem, Settings


def _sizes_fields() -> dict[str, Any]:
    hints = typing.get_type_hints(GemmaConfig)
    fields: dict[str, Any] = {field.name: (hints[field.name] | None, None) for field in dataclasses.fields(GemmaConfig)}
    fields["local_layers"] = (list[bool] | None, None)
    return fields


_AllSizes = pydantic.create_model("_AllSizes", __base__=Settings, **_sizes_fields())


class Sizes(_AllSizes):
    """Fields of GemmaConfig; what is left out has its default."""

    vocabulary_size: int | None = Field(
        None, ge=1, description="Rows of the embedding; default the tokenizer's pieces."
    )


class TokenizerTraining(Settings):
    """A SentencePiece tokenizer trained on the pretraining data."""

    vocabulary_size: int = Field(512, ge=300, description="Pieces, the 256 byte pieces and control tokens included.")


class ScratchModel(Settings):
    """A model with random weights, for pretraining."""

    config: Sizes = Field(description="Fields of GemmaConfig.")
    tokenizer: TokenizerTraining = Field(TokenizerTraining(), description="How its tokenizer is trained.")

    def gemma_config(self, vocabulary_size: int | None = None) -> GemmaConfig:
        """The sizes as a GemmaConfig.

        Args:
            vocabulary_size: rows of the embedding, default the given `config.vocabulary_size`, else the tokenizer's.

        Raises:
            ValueError: sizes that do not fit each other.
        """
        values = {name: value for name, value in self.config if value is not None}
        if "local_layers" in values:
            values["local_layers"] = tuple(values["local_layers"])
        if vocabulary_size is not None:
            values["vocabulary_size"] = vocabulary_size
        values.setdefault("vocabulary_size", self.tokenizer.vocabulary_size)
        return GemmaConfig(**values)

    def problems(self) -> Iterator[Problem]:
        """Sizes that do not fit each other."""
        rows, pieces = self.config.vocabulary_size, self.tokenizer.vocabulary_size
        if rows is not None and rows < pieces:
            message = f"{rows} rows of the embedding are fewer than the tokenizer's {pieces} pieces"
            yield ("config", "vocabulary_size"), f"{message}; leave it out, or raise it"
        try:
            self.gemma_config()
        except (ValueError, TypeError) as error:
            yield ("config",), str(error)


def _model_tag(value: Any) -> str:
    return "<name>" if isinstance(value, str) or value is None else "<scratch>"


Model = Annotated[
    Annotated[str | None, Tag("<name>")] | Annotated[ScratchModel, Tag("<scratch>")], Discriminator(_model_tag)
]
"""Published name, hub id, folder or file; or a model from scratch."""
