"""What an instruction tuning stage is asked for."""

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import TrainingOptions, Use
from pipelines.schema.data import Demonstrations
from pipelines.schema.roles import Product


class InstructionTuning(TrainingOptions):
    """Supervised tuning on prompts and responses; loss on the responses."""

    produces: ClassVar[Product] = "policy"
    elsewhere = dict.fromkeys(("sft", "supervised_fine_tuning", "finetune", "fine_tuning"), "")

    kind: Literal["instruction_tuning"]
    data: Demonstrations = Field(description="Prompts and completions, or conversations; a best_of_n stage has both.")

    def reads(self) -> tuple[Use, ...]:
        """Prompts with their responses."""
        return ("instruction",)
