"""What a pretraining stage needs of a device's memory."""

from pipelines.memory.stages import trained_on_rows
from pipelines.memory.usage import Sized, Usage
from pipelines.stages.pretraining.config import Pretraining


def needs(config: Pretraining, sized: Sized) -> list[Usage]:
    """Its moments."""
    return [trained_on_rows(config, sized, sequences=1, has_head=True).update()]
