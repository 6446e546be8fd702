"""What a pretraining stage is asked for."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import Problem, Use
from pipelines.schema.mixture import MixedOptions, TrainingData
from pipelines.schema.roles import Product


class Pretraining(MixedOptions):
    """Next-token training on packed plain text."""

    produces: ClassVar[Product] = "policy"
    elsewhere = dict.fromkeys(("pretrain", "pt", "cpt", "clm"), "")

    kind: Literal["pretraining"]
    data: TrainingData = Field(description="Texts; or several sources of them, a list with names and weights.")

    def reads(self) -> tuple[Use, ...]:
        """Plain texts."""
        return ("text",)

    def problems_from_scratch(self) -> Iterator[Problem]:
        """It may start from random weights, but for an adapter."""
        if self.lora is not None:
            message = "an adapter over random weights learns next to nothing; leave it out, or start from a model"
            yield ("lora",), message
