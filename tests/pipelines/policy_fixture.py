"""What the tests of sampling stages share: tiny models that know the built-in task's words, rollouts by hand, and dense oracles."""

import numpy as np
from stage_fixture import SCRATCH

from pipelines.data.columns import Prompt
from pipelines.prompts import Prompts
from pipelines.rollout import Rollout

CONFIG = {**SCRATCH["config"], "sliding_window": 16, "local_layers": (True, False)}


def world_model(folder, seed=3, scale=1.0):
    """A random language model with a tokenizer of the built-in task, saved as a stage's folder would be; the folder of the stage.

    Args:
        scale: the embedding's standard deviation is 0.02 * scale. An untrained model of unit size repeats its last token; a small one
            draws from flat distributions, which get sharper with the scale.
    """
    from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig

    tokenizer = world_tokenizer()
    model = GemmaCausalLM(GemmaBackbone(GemmaConfig(vocabulary_size=tokenizer.vocabulary_size, **CONFIG), seed=seed), tokenizer)
    embedding = model.backbone.named_variables()["embedding"]
    embedding.assign(np.asarray(embedding) * (0.02 * scale * embedding.shape[1] ** 0.5))
    model.save_to_preset(folder / "model")
    return folder


def world_reward_model(folder, seed=5, mean=0.0, std=1.0):
    """A random reward model over the same ids, saved as a stage's folder would be; the folder of the stage."""
    from gemma_keras import GemmaBackbone, GemmaConfig, GemmaRewardModel

    tokenizer = world_tokenizer()
    config = GemmaConfig(vocabulary_size=tokenizer.vocabulary_size, **CONFIG)
    model = GemmaRewardModel(GemmaBackbone(config, seed=seed), tokenizer, seed=seed)
    model.reward_mean, model.reward_std = mean, std
    model.save_to_preset(folder / "model")
    return folder


def world_tokenizer():
    """300 pieces over words of the built-in task."""
    from gemma_keras import GemmaTokenizer
    from pipelines.tasks import task

    texts = [f"{item.prompt}\n{item.demonstration}" for item in task("small_world").prompts("sft", 40, 0)]
    return GemmaTokenizer.train(texts, 300, "gemma3")


def prompts_of(token_ids, answers=None, length=None):
    """`Prompts` of given ids."""
    examples = [Prompt(f"prompt {i}", answers[i] if answers else None, f"data.jsonl:{i + 1}") for i in range(len(token_ids))]
    return Prompts(examples, [list(ids) for ids in token_ids], length or max(map(len, token_ids)), 0)


def rollout_of(prompt_ids, responses, finished, texts, prompt_index=None):
    """A rollout by hand: lists of ids, prompts padded on the left and responses on the right with 0."""
    p, r, n = max(map(len, prompt_ids)), max(map(len, responses)), len(responses)
    ids, is_token = np.zeros((n, p), np.int32), np.zeros((n, p), bool)
    response_ids, response_mask = np.zeros((n, r), np.int32), np.zeros((n, r), bool)
    for row, (prompt, response) in enumerate(zip(prompt_ids, responses, strict=True)):
        ids[row, p - len(prompt) :], is_token[row, p - len(prompt) :] = prompt, True
        response_ids[row, : len(response)], response_mask[row, : len(response)] = response, True
    index = np.arange(n) if prompt_index is None else np.asarray(prompt_index)
    return Rollout(index, ids, is_token, response_ids, response_mask, np.asarray(finished), texts)


def dense_log_probs(model, prompt, response, temperature=1.0, width=96):
    """Log-probabilities (r, v) before each response token, from the full logits of one row.

    Args:
        width: padded length, on the right, where no causal model can see it; fixed, so that eager JAX compiles each operation once.
    """
    from gemma_keras.backends import to_host

    size = len(prompt) + len(response)
    ids = np.array([prompt + response + [0] * (width - size)], np.int32)
    logits = to_host(model({"token_ids": ids, "padding_mask": np.arange(width)[None] < size}))
    logits = np.asarray(logits, np.float64)[0, len(prompt) - 1 : size - 1] / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
