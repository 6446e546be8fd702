"""What a preference optimization stage needs of a device's memory: both answers of a pair are rows of a forward pass.
The reference is the policy before it learns, or a model that is gone when the updates begin."""

from pipelines.memory.stages import trained_on_rows
from pipelines.memory.usage import Sized, Usage
from pipelines.stages.preference_optimization.config import PreferenceOptimization


def needs(config: PreferenceOptimization, sized: Sized) -> list[Usage]:
    """Its updates."""
    return [trained_on_rows(config, sized, sequences=2, has_head=True).update()]
