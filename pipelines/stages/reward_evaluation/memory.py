"""What an evaluation of a reward model needs of a device's memory."""

from pipelines.memory.sampling import scoring
from pipelines.memory.stages import reward_model_bytes
from pipelines.memory.usage import Sized, Usage
from pipelines.stages.reward_evaluation.config import RewardEvaluation


def needs(config: RewardEvaluation, sized: Sized) -> list[Usage]:
    """Its one moment."""
    weights = reward_model_bytes(config, config.dtype, config.quantize_reward_model, sized)
    model = sized.config_of(config.model)
    rows = (config.micro_batch_size, config.max_length)
    return [scoring(Usage("scoring", weights=weights), model, sized.backend, config.dtype, *rows, 0)]
