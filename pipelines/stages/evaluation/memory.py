"""What an evaluation needs of a device's memory: the reference, one policy at a time and reward models that judge."""

import dataclasses

from pipelines.memory.head import exact_kl_bytes
from pipelines.memory.sampling import Sampled, scoring
from pipelines.memory.stages import reward_model_bytes
from pipelines.memory.usage import Sized, Usage
from pipelines.memory.weights import frozen_bytes
from pipelines.stages.evaluation.config import Evaluation


def needs(config: Evaluation, sized: Sized) -> list[Usage]:
    """Its moments, those of the policy that takes most."""
    reference = config.reference or config.compare[0]
    rewards = reward_model_bytes(config, config.dtype, config.quantize_reward_model, sized)
    # Before a policy is loaded the one before it is still held.
    others = [frozen_bytes(sized.config_of(name), config.dtype) for name in config.compare if name != reference]
    frozen = rewards + sum(sorted(others)[-2:])
    model = max((sized.config_of(name) for name in config.compare), key=lambda one: one.parameter_count)
    standing = Usage("sampling", weights=frozen_bytes(sized.config_of(reference), config.dtype), frozen=frozen)
    sampled = Sampled(
        model, sized.backend, config.dtype, True, config.batch_size, 1, config.max_length, config.max_new_tokens
    )
    rows = (config.batch_size, config.max_length)
    read = scoring(dataclasses.replace(standing, doing="scoring"), model, sized.backend, config.dtype, *rows, 0)
    measured = dataclasses.replace(
        read, doing="measuring the KL", logits=exact_kl_bytes(model, config.batch_size, config.max_new_tokens)
    )
    return [sampled.beside(standing), read, measured]
