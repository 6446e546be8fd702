"""What a policy optimization stage needs of a device's memory.

With full tuning the reference is a model of its own; with an adapter it is the policy without it, and takes nothing. A
copy for rollouts stands all the time; evaluations sample from the policy, whose cache is never smaller than the copy's.
Some algorithms train a model of values beside the policy, as large and with moments of its own.
"""

import dataclasses

from pipelines.memory.head import exact_kl_bytes
from pipelines.memory.sampling import Sampled, scoring
from pipelines.memory.stages import learning, reward_model_bytes
from pipelines.memory.usage import Sized, Usage
from pipelines.memory.weights import frozen_bytes, weight_bytes
from pipelines.stages.policy_optimization.config import PolicyOptimization
from pipelines.stages.policy_optimization.methods.registry import METHODS


def needs(config: PolicyOptimization, sized: Sized) -> list[Usage]:
    """Its moments: sampling, scoring, updating, and the KL of an evaluation."""
    model = sized.config_of(config.from_)
    responses = config.prompts_per_step * config.samples_per_prompt
    size = min(config.micro_batch_size or responses, responses)
    frozen = reward_model_bytes(config, config.dtype, config.quantize_reward_model, sized)
    if config.lora is None:
        frozen += frozen_bytes(model, config.dtype)
    if config.rollout_dtype == "bfloat16":
        frozen += weight_bytes(model, "bfloat16")
    elif config.rollout_dtype == "int8":
        frozen += weight_bytes(model, config.dtype, "int8")
    learned = learning(config, sized, size, config.max_new_tokens, sums_up=size < responses)
    beside = []
    if METHODS[config.algorithm.name].trains_values:
        values = dataclasses.replace(
            learning(config, sized, size, 0, sums_up=size < responses), doing="updating the values"
        )
        policy, valued = learned.standing(""), values.standing("")
        beside = [values.update(frozen + policy.weights + policy.moments)]
        frozen += valued.weights + valued.moments
    sampled = Sampled(
        model, sized.backend, config.dtype, False, responses, config.samples_per_prompt, config.max_length,
        config.max_new_tokens,
    )  # fmt: skip
    read = scoring(
        learned.standing("scoring", frozen), model, sized.backend, config.dtype, size, config.max_length,
        config.max_new_tokens,
    )  # fmt: skip
    measured = dataclasses.replace(
        read, doing="measuring the KL", logits=exact_kl_bytes(model, size, config.max_new_tokens)
    )
    return [sampled.beside(learned.standing("sampling", frozen)), read, learned.update(frozen), *beside, measured]
