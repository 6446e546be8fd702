"""What an instruction tuning stage is asked for."""

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import Use
from pipelines.schema.mixture import MixedOptions, TrainingData
from pipelines.schema.roles import Product


class InstructionTuning(MixedOptions):
    """Supervised tuning on prompts and responses; loss on the responses."""

    produces: ClassVar[Product] = "policy"
    elsewhere = dict.fromkeys(("sft", "supervised_fine_tuning", "finetune", "fine_tuning"), "")

    kind: Literal["instruction_tuning"]
    data: TrainingData = Field(
        description="Prompts and completions, or conversations; a best_of_n stage has both. Or several sources of "
        "them, a list with names and weights."
    )

    def reads(self) -> tuple[Use, ...]:
        """Prompts with their responses."""
        return ("instruction",)
