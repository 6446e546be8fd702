"""What a look for memorized texts needs of a device's memory: one model at a time, and its cache."""

from pipelines.memory.sampling import Sampled
from pipelines.memory.usage import Sized, Usage, largest
from pipelines.memory.weights import frozen_bytes
from pipelines.stages.memorization.config import Memorization


def needs(config: Memorization, sized: Sized) -> list[Usage]:
    """Its one moment, that of the model that takes most."""
    width, found = config.prompt_tokens + config.continuation_tokens + 1, []
    for name in config.models:
        model = sized.config_of(name)
        standing = Usage("asking", weights=frozen_bytes(model, config.dtype))
        sampled = Sampled(
            model, sized.backend, config.dtype, True, config.batch_size, 1, width, config.continuation_tokens
        )
        found.append(sampled.beside(standing))
    return [largest(found)]
