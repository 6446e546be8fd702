"""What an instruction tuning stage needs of a device's memory."""

from pipelines.memory.stages import trained_on_rows
from pipelines.memory.usage import Sized, Usage
from pipelines.stages.instruction_tuning.config import InstructionTuning


def needs(config: InstructionTuning, sized: Sized) -> list[Usage]:
    """Its moments."""
    return [trained_on_rows(config, sized, sequences=1, has_head=True).update()]
