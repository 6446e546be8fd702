"""Operations that a Gemma needs for so many tokens: what its products with weights and its attention multiply and add.

As in PaLM, arXiv:2204.02311, appendix B: a product with a weight costs 2 operations a token forwards and twice as much
backwards, attention 4 a query, key, head and unit of head size forwards. What is computed again (`remat`) or is
padding is not needed, and not counted; nor are norms, rotations, the softmax and the embedding's look-up.

Departures from there:
1. A token attends to the keys that it sees, half of the square in a causal row, and in a local layer the window's.
2. The head is counted for the tokens that it is needed for: those that bear loss, or are sampled.
3. Under an adapter the frozen weights have no gradient of their own: 4 operations in place of 6.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gemma_keras.config import GemmaConfig


@dataclasses.dataclass(frozen=True)
class Passes:
    """Operations a token.

    Attributes:
        weights: of each weight in a product. attention: of each query, key, head and unit of head size.
        adapter: of each weight of an adapter.
    """

    weights: int
    attention: int
    adapter: int = 0


FORWARD = Passes(2, 4)
TRAINING = Passes(6, 12)
ADAPTER_TRAINING = Passes(4, 12, 6)


def model_flops(
    config: GemmaConfig, keys: np.ndarray, head_tokens: int, passes: Passes, adapter_parameters: int = 0
) -> float:
    """Operations for some real tokens.

    Args:
        config: of the model.
        keys: int (n,), how many keys each token sees in a layer without a window, itself included.
        head_tokens: how many of them the vocabulary is needed for.
        passes: forwards alone, or with gradients.
        adapter_parameters: weights of the adapter that is trained.
    """
    d, h, layers = config.hidden_dim, config.head_dim, config.num_layers
    heads = 2 * config.num_query_heads + 2 * config.num_key_value_heads  # queries, output, keys, values
    inner = layers * (d * h * heads + 3 * d * config.intermediate_dim)
    local = sum(config.local_layers)
    seen = (layers - local) * keys.sum(dtype=np.float64)
    if config.sliding_window is not None:
        seen += local * np.minimum(keys, config.sliding_window).sum(dtype=np.float64)
    weights = inner * len(keys) + config.vocabulary_size * d * head_tokens
    attention = config.num_query_heads * h * float(seen)
    adapter = adapter_parameters * len(keys)
    return passes.weights * weights + passes.attention * attention + passes.adapter * adapter


def model_flops_utilization(flops: float, seconds: float, peak: float) -> float:
    """The share of the product peak that needed operations are: `flops / (seconds * peak)`. PaLM's appendix B takes the
    peak that a maker names, we the one that was measured."""
    return flops / (seconds * peak)


def keys_of_batch(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """`keys` of the real tokens of a batch padded on the right, or of several sequences a row with `positions`.

    Args:
        batch: `padding_mask` bool (b, t), True for a real token; perhaps `positions` int (b, t).
    """
    is_real = np.asarray(batch["padding_mask"], bool)
    positions = batch["positions"] if "positions" in batch else np.cumsum(is_real, axis=1) - 1
    return np.asarray(positions)[is_real] + 1


def keys_of_answers(prompt_lengths: np.ndarray, answer_lengths: np.ndarray) -> np.ndarray:
    """`keys` of what sampling computes: each prompt once, and of each answer every token but the last, which nothing
    follows.

    Args:
        prompt_lengths: int (q,). answer_lengths: int (b,), b = k * q: row i * k + j answers prompt i.
    """
    befores = np.repeat(prompt_lengths, len(answer_lengths) // len(prompt_lengths))
    runs = [np.arange(1, length + 1) for length in prompt_lengths]
    runs += [np.arange(start + 1, start + length) for start, length in zip(befores, answer_lengths, strict=True)]
    return np.concatenate(runs)
