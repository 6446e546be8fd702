"""What a preference collection stage needs of a device's memory."""

from pipelines.memory.stages import judge_usage, reward_model_bytes, sampled_and_scored
from pipelines.memory.usage import Sized, Usage
from pipelines.schema.pairwise import Judging
from pipelines.stages.preference_collection.config import PreferenceCollection


def needs(config: PreferenceCollection, sized: Sized) -> list[Usage]:
    """Its moments."""
    rewards = reward_model_bytes(config, config.dtype, config.quantize_reward_model, sized)
    if isinstance(config.rater, Judging):
        rewards += judge_usage(config.rater, config.dtype, sized).weights
    return sampled_and_scored(
        config, sized, rewards, config.batch_size, config.samples_per_prompt, config.max_new_tokens
    )
