"""What a reward modeling stage needs of a device's memory: both answers of a pair are rows of a forward pass."""

from pipelines.memory.sampling import Sampled
from pipelines.memory.stages import trained_on_rows
from pipelines.memory.usage import Sized, Usage
from pipelines.memory.weights import weight_bytes
from pipelines.stages.reward_modeling.config import LONGEST_SAMPLE, SAMPLING_BATCH, RewardModeling


def needs(config: RewardModeling, sized: Sized) -> list[Usage]:
    """Its moments: sampling before there is an optimizer, then the updates."""
    found = [trained_on_rows(config, sized, sequences=2, has_head=False).update()]
    if config.normalize_prompts and not isinstance(config.data, str):
        model, new_tokens = sized.config_of(config.from_), min(LONGEST_SAMPLE, config.max_length - 1)
        sampled = Sampled(model, sized.backend, config.dtype, False, SAMPLING_BATCH, 1, config.max_length, new_tokens)
        found.append(sampled.beside(Usage("sampling", weights=weight_bytes(model, config.dtype))))
    return found
