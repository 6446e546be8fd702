"""A two-layer Gemma under each algorithm of policy optimization, on a problem small enough to enumerate: two prompts of
different length, responses of at most two tokens of eight, a stop token that ends some early, a reward a response.

All of a stage's parts but its files: sampling, scoring, the KL to the tuned model, the algorithm, the optimizer. The
optimum is pi* ~ pi_ref exp(reward / kl_weight), whatever the algorithm.
"""

import itertools

import numpy as np
import pytest
from policy_fixture import prompts_of
from stage_fixture import stage_config

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.scoring.base import Rater, Scores
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.policy_optimization.drawing import Drawing
from pipelines.stages.policy_optimization.methods.registry import method_of
from pipelines.stages.policy_optimization.values import ValueLearner
from pipelines.stages.preference_optimization.answer_batches import Answer
from pipelines.stages.preference_optimization.scoring import AnswerScorer
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

VOCABULARY, STOP = 8, 1
PROMPTS = [[2, 5], [2, 6, 3, 7]]
OTHERS = [token for token in range(VOCABULARY) if token != STOP]
RESPONSES = [[STOP], *([first, second] for first in OTHERS for second in range(VOCABULARY))]
REWARDS = np.random.default_rng(7).normal(size=(len(PROMPTS), len(RESPONSES)))
KL_WEIGHT, STEPS = 0.7, 600
ALGORITHMS = {
    "rloo": "rloo",
    "reinforce": "reinforce",
    "dr_grpo": {"name": "grpo", "standard_deviation": False, "aggregation": "constant"},
    "ppo": {"name": "ppo", "trace": 1.0, "whiten": False},
}


class Ids:
    """As much of a tokenizer as sampling asks for."""

    stop_token_ids = (STOP,)

    def decode(self, ids):
        return ""


class Table(Rater):
    """The reward of each response, from the table."""

    name = source = "table"

    def score(self, prompts, rollout):
        rows = [
            REWARDS[prompt, RESPONSES.index(rollout.response_list(row))]
            for row, prompt in enumerate(rollout.prompt_index.tolist())
        ]
        return Scores(np.array(rows), {})


def sized(seed):
    sizes = {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_dim": 32, "intermediate_dim": 64}
    return GemmaBackbone(GemmaConfig(vocabulary_size=VOCABULARY, num_layers=2, **sizes), seed=seed)


def language_model():
    model = GemmaCausalLM(sized(5))
    model.tokenizer = Ids()
    return model


def of_all(model):
    """Log-probability of every response to each prompt: (2, 57)."""
    items = [(Answer([*prompt, *response], len(response)),) for prompt in PROMPTS for response in RESPONSES]
    return AnswerScorer(model, 1.0).of_items(items, len(items), 16)[:, 0].reshape(REWARDS.shape).astype(np.float64)


def total_variation(log_probs, optimum):
    return 0.5 * np.abs(np.exp(log_probs) - np.exp(optimum)).sum(axis=1).max()


def trained(algorithm, steps):
    """The policy before and after: log-probabilities of all responses."""
    policy, reference = language_model(), language_model()
    config = stage_config(
        "policy_optimization", reward="exact_answer", data={"path": "rows.jsonl", "prompt": "p", "answer": "a"},
        algorithm=algorithm, kl_weight=KL_WEIGHT, samples_per_prompt=8, prompts_per_step=32, max_new_tokens=2,
        steps=steps,
    )  # fmt: skip
    settings = OptimizerSettings(2e-3, schedule="cosine", warmup_fraction=0.02, weight_decay=0.0, beta_2=0.99)
    method = method_of(config.algorithm)
    method.learner = ValueLearner(GemmaRewardModel(sized(6)), settings, steps, None, 256)
    scorers = [ResponseScorer(model, 1.0, 256) for model in (policy, reference)]
    trainer = Trainer(
        policy, method.loss(config), settings, steps, count_units=method.count_units, summarize=method.figures
    )
    sampling = Sampling(policy, 2, 1.0, 256, seed=3, stage="policy", with_entropy=True)
    drawing = Drawing(sampling, prompts_of(PROMPTS), Table(), method, 8)
    players = policy_optimization.Players(
        drawing, scorers[0], ReferencePolicy(reference), scorers[1], method, trainer, KL_WEIGHT
    )
    before = of_all(policy)
    method.start(0.0)
    batches = itertools.repeat(np.arange(32) % 2)
    for step in range(1, steps + 1):
        policy_optimization._update(players, drawing.draw(batches, step), config)
    return before, of_all(policy)


def optimum(reference):
    logits = reference + REWARDS / KL_WEIGHT
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_each_algorithm_ends_at_the_optimum_of_the_reward_under_the_kl(name):
    before, after = trained(ALGORITHMS[name], STEPS)
    assert total_variation(before, optimum(before)) > 0.3
    assert total_variation(after, optimum(before)) < 0.05
