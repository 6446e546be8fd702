"""What a side by side needs of a device's memory: one policy at a time, then the judge."""

from pipelines.memory.sampling import Sampled
from pipelines.memory.stages import judge_usage
from pipelines.memory.usage import Sized, Usage
from pipelines.memory.weights import frozen_bytes
from pipelines.stages.side_by_side.config import SideBySide


def needs(config: SideBySide, sized: Sized) -> list[Usage]:
    """Its moments, those of the policy that takes most."""
    found = []
    if config.compare:
        model = max((sized.config_of(name) for name in config.compare), key=lambda one: one.parameter_count)
        standing = Usage("sampling", weights=frozen_bytes(model, config.dtype))
        sampled = Sampled(
            model, sized.backend, config.dtype, True, config.batch_size, 1, config.max_length, config.max_new_tokens
        )
        found.append(sampled.beside(standing))
    return [*found, judge_usage(config, config.dtype, sized)]
