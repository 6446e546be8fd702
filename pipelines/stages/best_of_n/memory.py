"""What a best-of-n stage needs of a device's memory."""

from pipelines.memory.stages import reward_model_bytes, sampled_and_scored
from pipelines.memory.usage import Sized, Usage
from pipelines.stages.best_of_n.config import BestOfN


def needs(config: BestOfN, sized: Sized) -> list[Usage]:
    """Its moments."""
    rewards = reward_model_bytes(config, config.dtype, config.quantize_reward_model, sized)
    return sampled_and_scored(
        config, sized, rewards, config.batch_size, config.samples_per_prompt, config.max_new_tokens
    )
