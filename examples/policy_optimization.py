"""Policy optimization in its simplest form: sample answers, score them, make the better ones likelier, stay near the
start.

    python examples/policy_optimization.py

The start is a model with random weights, and the reward a function that anyone can read: the share of the answer that
is letters. Each step is REINFORCE with the other answers to the same prompt as baseline, and the divergence from the
starting model charged to the reward. The workflow stage `policy_optimization` adds learned rewards, evaluation,
schedules and logs.
"""

# gemma_keras comes before Keras: it makes Keras use the backend that is installed, where none is named.
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer

# isort: split
import keras
import numpy as np

from gemma_keras.backends import to_host
from pipelines.algorithms.advantages import leave_one_out
from pipelines.algorithms.kl import sequence_kl
from pipelines.data.columns import Prompt
from pipelines.sampling.prompts import encode_prompts
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.stages.policy_optimization.updates import count_responses, policy_loss, update_batches
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

STEPS, SAMPLES, KL_WEIGHT = 12, 8, 0.02
QUESTIONS = [f"do you like {thing}?" for thing in ("tea", "rain", "cats", "jazz")]

tokenizer = GemmaTokenizer.train([f"user model {question} yes no" for question in QUESTIONS] * 8, vocabulary_size=304)
config = GemmaConfig(
    vocabulary_size=tokenizer.vocabulary_size(),
    num_layers=1,
    num_query_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    hidden_dim=32,
    intermediate_dim=64,
)
policy = GemmaCausalLM(GemmaBackbone(config, seed=0), tokenizer)
reference = GemmaCausalLM(GemmaBackbone(config, seed=0), tokenizer)  # the same weights, and they stay as they are
print(f"{config.parameter_count:,} parameters on {keras.backend.backend()}")


def reward(answer: str) -> float:
    return sum("a" <= character <= "z" for character in answer) / max(1, len(answer))


prompts = encode_prompts(
    tokenizer, [Prompt(question, None, "here") for question in QUESTIONS], max_length=64, max_new_tokens=6
)
rows, batch = range(len(prompts)), len(prompts) * SAMPLES
sampling = Sampling(policy, max_new_tokens=6, temperature=1.0, batch_size=batch, seed=0, stage="example")
score_policy, score_reference = ResponseScorer(policy, 1.0, batch), ResponseScorer(reference, 1.0, batch)
settings = OptimizerSettings(learning_rate=3e-2, schedule="constant")
trainer = Trainer(policy, policy_loss(1.0, None), settings, STEPS, count_units=count_responses)

for step in range(STEPS):
    rollout = sampling.sample(
        prompts, rows, SAMPLES, step
    )  # exactly these token ids are learned from; nothing is encoded again
    rewards = np.array([reward(text) for text in rollout.texts], np.float32)
    log_probs, reference_log_probs = score_policy(rollout)[0], score_reference(rollout)[0]
    kl = to_host(sequence_kl(log_probs, reference_log_probs, rollout.response_mask))
    charged = (rewards - KL_WEIGHT * kl).astype(np.float32).reshape(len(prompts), SAMPLES)
    advantages = to_host(leave_one_out(keras.ops.convert_to_tensor(charged))).reshape(-1)
    trainer.update(list(update_batches(rollout, {"old_log_probs": log_probs, "advantages": advantages}, batch)))
    print(f"step {step:2}  reward {rewards.mean():.3f}  kl {kl.mean():.3f}  e.g. {rollout.texts[0]!r}")
