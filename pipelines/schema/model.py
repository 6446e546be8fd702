"""The workflow's model: a name, or the sizes of one with random weights."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pydantic
from pydantic import Discriminator, Field, Tag

from gemma_keras.config import GemmaConfig
from pipelines.host.process_memory import total_memory
from pipelines.schema.base import Problem, Settings


def _sizes_fields() -> dict[str, Any]:
    hints = typing.get_type_hints(GemmaConfig)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(GemmaConfig):
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        text = _size_meanings().get(field.name, "") + ("" if default in (None, ()) else f" Default {default}.")
        meaning = Field(None, description=text[:1].upper() + text[1:])
        fields[field.name] = (hints[field.name] | None, meaning)
    fields["local_layers"] = (list[bool] | None, fields["local_layers"][1])
    return fields


def _size_meanings() -> dict[str, str]:
    """Field → its sentence in GemmaConfig's docstring, where several fields may share one: `a, b: of both.`"""
    arguments = (GemmaConfig.__doc__ or "").partition("Args:")[2].partition("Raises:")[0]
    known = "|".join(field.name for field in dataclasses.fields(GemmaConfig))
    names_and_texts = re.split(rf"(?:^|(?<=\s))((?:{known})(?:, (?:{known}))*): ", " ".join(arguments.split()))[1:]
    found = {}
    for names, text in zip(names_and_texts[::2], names_and_texts[1::2], strict=True):
        found.update(dict.fromkeys(names.split(", "), text.strip().rstrip(".") + "."))
    return found


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
            parameters = self.gemma_config().parameter_count
        except (ValueError, TypeError) as error:
            yield ("config",), str(error)
            return
        # Weights, gradients and both moments in float32; what a stage needs besides says `plan --memory`.
        needed, there = 16 * parameters, total_memory()
        if needed > there:
            message = f"{parameters:,} parameters need {needed / 2**30:,.1f} GiB to be trained"
            yield ("config",), f"{message}; this machine has {there / 2**30:,.1f}. Make it smaller"


def _model_tag(value: Any) -> str:
    return "<name>" if isinstance(value, str) or value is None else "<scratch>"


Model = Annotated[
    Annotated[str | None, Tag("<name>")] | Annotated[ScratchModel, Tag("<scratch>")], Discriminator(_model_tag)
]
"""Published name, hub id, folder or file; or a model from scratch."""
