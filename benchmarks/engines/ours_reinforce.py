"""One RL step of ours, from the parts that the stage `policy_optimization` is made of and with its settings."""

import itertools

import numpy as np

import gemma_keras
from benchmarks.engines.inputs import even_share, expect_shape, token_ids
from gemma_keras.backends import to_host
from pipelines.algorithms.kl import sequence_kl
from pipelines.sampling.prompts import Prompts
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.sampling.rollout_copy import RolloutCopy
from pipelines.stages.policy_optimization.behaviour import BehaviourScorer
from pipelines.stages.policy_optimization.methods.registry import METHODS
from pipelines.stages.policy_optimization.updates import (
    count_responses,
    importance,
    policy_loss,
    ratio_figures,
    update_batches,
)
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

KL_WEIGHT = 0.05


class _NoText:
    """In place of a tokenizer: no token ends an answer, and answers are not decoded."""

    stop_token_ids = ()

    def decode(self, ids) -> str:
        return ""


def step(case, policy, stopwatch):
    """A function that runs one step: rollouts of `batch_size * samples_per_prompt` answers, one update."""
    policy.tokenizer = _NoText()
    reference = gemma_keras.GemmaCausalLM(gemma_keras.GemmaBackbone(policy.config, dtype=case.dtype))
    rollouts = case.batch_size * case.samples_per_prompt
    rollout_copy = None if case.rollout_dtype is None else RolloutCopy(policy, case.rollout_dtype)
    sampler = policy if rollout_copy is None else rollout_copy.model
    draws_itself = rollout_copy is None
    sampling = Sampling(sampler, case.new_tokens, 1.0, rollouts, 17, "benchmark", with_entropy=draws_itself)
    score_policy = ResponseScorer(policy, 1.0, case.micro_batch_size)
    if draws_itself:  # where the sampler's log-probabilities are as good, one step in ten is scored again
        score_policy = BehaviourScorer(score_policy, compare_every=10)
    score_reference = ResponseScorer(reference, 1.0, case.micro_batch_size)
    method = METHODS["rloo"]()
    settings = OptimizerSettings(learning_rate=1e-5, schedule="constant", warmup_fraction=0.0)
    trainer = Trainer(
        policy, policy_loss(1.0, None), settings, 1_000_000, count_units=count_responses, summarize=ratio_figures
    )
    prompts = Prompts([], token_ids(case, case.batch_size, case.prompt_length).tolist(), case.prompt_length, 0)
    numbers = itertools.count()

    def sample():
        if rollout_copy is not None:
            rollout_copy.refresh()
        rollout = sampling.sample(prompts, range(case.batch_size), case.samples_per_prompt, next(numbers))
        expect_shape(rollout.response_ids.shape, (rollouts, case.new_tokens))
        old_log_probs, _ = score_policy(rollout)
        reference_log_probs, _ = score_reference(rollout)
        kl = to_host(sequence_kl(old_log_probs, reference_log_probs, rollout.response_mask))
        rewards = np.array(even_share(rollout.response_ids.tolist())) - KL_WEIGHT * kl
        advantages = method.advantages(rewards.reshape(case.batch_size, case.samples_per_prompt))
        arrays = {"old_log_probs": old_log_probs, "advantages": advantages}
        if rollout_copy is not None:
            arrays["importance_weights"] = importance(rollout, old_log_probs, "token", 2.0)[0]
        trainer.update(list(update_batches(rollout, arrays, case.micro_batch_size)))

    return sample
